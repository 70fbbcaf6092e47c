"""Hours of live audio over the realtime WebSocket, faster than real time, and a client that vanishes at their end."""

import json
import math
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faults.process import ServerProcess, UnexpectedError
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tilewhisper.models.audio.reader import decode_audio
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.constants import SAMPLE_RATE

FLAT = 1.05
_CYCLE_SECONDS = 300
"""The speech comes once in each cycle; the rest is silence."""
_SLACK_SECONDS = 2.0
_LAST_TEXT_SECONDS = 300.0
_COMPLETED = "conversation.item.input_audio_transcription.completed"
_SPEECH_STARTED = "input_audio_buffer.speech_started"


@dataclass
class _Outcome:
    """What the server has said so far."""

    starts: list[float] = field(default_factory=list)
    """Seconds at which speech began."""
    texts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    """Set by the answer to the last commit."""


def warm_up(server: ServerProcess, speech: Path) -> str:
    """Load what live transcription needs beside the model."""
    _feed(server, decode_audio(speech), 2, math.inf)
    return ""


def live_audio(server: ServerProcess, speech: Path, hours: float, speed: float) -> str:
    """Feed `hours` of audio at `speed` times real time, or as fast as the server takes it."""
    samples = decode_audio(speech)
    cycles = max(2, round(hours * 3600 / _CYCLE_SECONDS))
    began = time.monotonic()
    outcome, memory = _feed(server, samples, cycles, speed)
    seconds = time.monotonic() - began
    if outcome.errors:
        raise UnexpectedError(f"errors: {'; '.join(outcome.errors[:3])}")
    longest = len(samples) / SAMPLE_RATE + _SLACK_SECONDS
    found = {int(start // _CYCLE_SECONDS) for start in outcome.starts if start % _CYCLE_SECONDS <= longest}
    if len(found) < cycles or any(start % _CYCLE_SECONDS > longest for start in outcome.starts):
        raise UnexpectedError(
            f"speech was found in {len(found)} of {cycles} places, at last at {outcome.starts[-3:]} s"
        )
    first, second = (max(part) for part in (memory[: len(memory) // 2], memory[len(memory) // 2 :]))
    if second > FLAT * first:
        raise UnexpectedError(f"resident memory grew from {first >> 20} to {second >> 20} MB")
    return (
        f"{cycles * _CYCLE_SECONDS / 3600:.1f} h at {cycles * _CYCLE_SECONDS / seconds:.0f} times real time, "
        f"{len(outcome.texts)} texts at the right times, memory {first >> 20} and {second >> 20} MB"
    )


def _feed(server: ServerProcess, samples: Samples, cycles: int, speed: float) -> tuple[_Outcome, list[int]]:
    """Send the audio, and vanish; what the server said, and its memory after each cycle. Raises UnexpectedError."""
    outcome, memory = _Outcome(), list[int]()
    address = f"ws://{server.host}:{server.port}/v1/realtime?intent=transcription"
    # A server that takes audio more slowly than it is sent answers pings late: they wait behind the audio.
    with connect(address, max_size=None, ping_interval=None) as socket:
        threading.Thread(target=_listen, args=[socket, outcome], daemon=True).start()
        _send(socket, {"type": "session.update", "session": _SESSION})
        began = time.monotonic()
        for second, message in enumerate(_messages(samples, cycles)):
            time.sleep(max(0.0, began + second / speed - time.monotonic()))
            socket.send(message)
            if not second % _CYCLE_SECONDS:
                memory.append(server.resident_bytes())
        _send(socket, {"type": "input_audio_buffer.commit"})
        if not outcome.done.wait(_LAST_TEXT_SECONDS):
            raise UnexpectedError(f"the last text does not come {'; '.join(outcome.errors[:3])}")
        socket.socket.close()  # without a closing handshake
    return outcome, memory


_SESSION = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
            "transcription": {"model": "whisper-1", "language": "en"},
            "turn_detection": {"type": "server_vad"},
        }
    },
}


def _messages(samples: Samples, cycles: int) -> Iterator[str]:
    """A message for each second of the audio."""
    cycle = np.zeros(_CYCLE_SECONDS * SAMPLE_RATE, "<i2")
    cycle[: len(samples)] = samples * 32767
    seconds = [
        json.dumps({"type": "input_audio_buffer.append", "audio": b64encode(second.tobytes()).decode()})
        for second in cycle.reshape(-1, SAMPLE_RATE)
    ]
    for _ in range(cycles):
        yield from seconds


def _listen(socket: ClientConnection, outcome: _Outcome) -> None:
    try:
        for message in socket:
            event = json.loads(message)
            if event["type"] == _SPEECH_STARTED:
                outcome.starts.append(event["audio_start_ms"] / 1000)
            elif event["type"] == _COMPLETED:
                if event["transcript"]:
                    outcome.texts.append(event["transcript"])
                else:
                    outcome.done.set()  # the silence at the end, which the client committed
            elif event["type"] in ("error", f"{_COMPLETED.removesuffix('completed')}failed"):
                outcome.errors.append(event["error"]["message"])
    except (WebSocketException, OSError) as error:
        if not outcome.done.is_set():
            outcome.errors.append(f"the connection ended: {error}")


def _send(socket: ClientConnection, event: dict[str, Any]) -> None:
    socket.send(json.dumps(event))
