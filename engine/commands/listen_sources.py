"""Sources of live audio: PCM on standard input, or a microphone. A thread reads; `take` gives what has arrived."""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewhisper.engine.errors import OptionError
from tilewhisper.models.audio.pcm import PcmStream
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.constants import SAMPLE_RATE

_PIECE = 1 << 16
_MOST_SECONDS = 30
"""Of standard input that waits: more is left in the pipe."""
_NO_SOUNDDEVICE = (
    "the microphone needs sounddevice: pip install 'tilewhisper[live]'; or pipe PCM: ffmpeg -i … -f s16le -ar 16000 "
    "-ac 1 - | tilewhisper listen -"
)


@dataclass(frozen=True)
class Arrival:
    """Samples that have arrived, and the time of the first in seconds, where the device states it."""

    samples: Samples
    at: float | None = None


class Arrivals:
    """What a thread has read and the command has not taken yet."""

    def __init__(self, most: int | None = None) -> None:
        """With `most` samples, `put` waits for room."""
        self._waiting: deque[Arrival] = deque()
        self._samples, self._most = 0, most
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None

    def put(self, arrival: Arrival) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._most is None or self._samples < self._most)
            self._waiting.append(arrival)
            self._samples += len(arrival.samples)
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> list[Arrival]:
        """All that has arrived, at least one piece; empty at the end. Raises the error of the reader."""
        with self._changed:
            while not (self._waiting or self._ended):
                self._changed.wait(0.5)  # with a timeout, so that Ctrl-C is noticed on every system
            taken = [*self._waiting]
            self._waiting.clear()
            self._samples = 0
            self._changed.notify_all()
            if not taken and self._error:
                raise self._error
            return taken


@contextmanager
def standard_input(rate: int, channels: int) -> Iterator[Arrivals]:
    """PCM, 16 bit, little-endian, on standard input. Raises AudioError."""
    pcm, arrivals = PcmStream(rate, 2, channels), Arrivals(_MOST_SECONDS * SAMPLE_RATE)

    def read() -> None:
        rest = b""
        # Unbuffered: a thread that waits in a buffer has its lock, without which Python ends with a fatal error.
        stream = sys.stdin.buffer.raw  # type: ignore[union-attr]
        try:
            while data := stream.read(_PIECE):
                data = rest + data
                whole = len(data) - len(data) % pcm.frame_bytes
                rest = data[whole:]
                arrivals.put(Arrival(pcm.feed(data[:whole])))
            arrivals.put(Arrival(pcm.finish()))
            arrivals.end(OptionError(_HALF.format(rest=len(rest), frame=pcm.frame_bytes)) if rest else None)
        except Exception as error:
            arrivals.end(error)

    threading.Thread(target=read, name="tilewhisper-stdin", daemon=True).start()
    yield arrivals


_HALF = "standard input ended with {rest} of the {frame} bytes of a sample: check --channels, and that it is s16le"


@contextmanager
def microphone(device: str | None) -> Iterator[Arrivals]:
    """An input device, by number or part of its name. Raises OptionError."""
    sounddevice, arrivals = _sounddevice(), Arrivals()
    first: float | None = None

    def take(data: Any, frames: int, time: Any, status: Any) -> None:
        nonlocal first
        begin = float(time.inputBufferAdcTime)
        first = begin if first is None else first
        # The device's clock tells how much is missing after an overflow.
        at = begin - first if status.input_overflow else None
        arrivals.put(Arrival(np.array(data[:, 0], np.float32), at))

    try:
        stream = sounddevice.InputStream(
            samplerate=SAMPLE_RATE,
            channels=1,
            dtype="float32",
            device=_number_or_name(device),
            blocksize=SAMPLE_RATE // 20,
            callback=take,
            finished_callback=arrivals.end,
        )
        with stream:
            yield arrivals
    except (sounddevice.PortAudioError, ValueError) as error:
        raise OptionError(
            f"cannot record from {device or 'the default input device'} ({error}); --list_devices shows the devices"
        ) from error


def devices() -> list[str]:
    """The input devices, a line each. Raises OptionError."""
    found = [
        f"{each['index']}  {each['name']}" for each in _sounddevice().query_devices() if each["max_input_channels"]
    ]
    if not found:
        raise OptionError("this machine has no input device; give - to read PCM from standard input")
    return found


def _number_or_name(device: str | None) -> int | str | None:
    return int(device) if device and device.isdecimal() else device


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the library PortAudio is missing
        raise OptionError(f"{_NO_SOUNDDEVICE} ({error})") from error
    return sounddevice
