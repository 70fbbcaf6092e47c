"""Wyoming, spoken by the package's own client: transcripts, what is offered, and events that do not fit."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SAMPLE, SAMPLE_WORDS
from running_server import running, wait_for

pytest.importorskip("silero_vad", reason="live transcription needs pip install 'tilewhisper[vad]'")
pytest.importorskip("wyoming")

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.info import Describe, Info

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.serving import wyoming

SECONDS = 20


@pytest.fixture(scope="module")
def served_wyoming(lent):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with running(lent, policy="torch", wyoming=address) as server:
        wait_for(lambda: answers(address))
        yield server, address


def answers(address: str) -> bool:
    host, port = address.removeprefix("tcp://").split(":")
    with socket.socket() as trial:
        return trial.connect_ex((host, int(port))) == 0


@asynccontextmanager
async def connected(served):
    async with AsyncClient.from_uri(served[1]) as client:
        yield client


async def event(client, kind: str) -> Event:
    while (read := await asyncio.wait_for(client.read_event(), SECONDS)) is not None:
        if read.type == kind:
            return read
    raise AssertionError(f"no {kind} before the end")


def audio(rate: int, width: int, channels: int) -> bytes:
    samples, own = soundfile.read(SAMPLE, dtype="float64")
    values = np.repeat(soxr.resample(samples, own, rate)[:, None], channels, axis=1).clip(-0.99, 0.99)
    if width == 1:
        return (values * 127 + 128).astype(np.uint8).tobytes()
    integers = (values * 2**31).astype("<i4").reshape(-1, 1).view(np.uint8)
    return integers[:, 4 - width :].tobytes()


async def transcribe(client, rate: int = 16_000, width: int = 2, channels: int = 1) -> Transcript:
    kind = {"rate": rate, "width": width, "channels": channels}
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(**kind).event())
    data, size = audio(rate, width, channels), 1024 * width * channels
    for first in range(0, len(data), size):
        await client.write_event(AudioChunk(audio=data[first : first + size], **kind).event())
    await client.write_event(AudioStop().event())
    return Transcript.from_event(await event(client, "transcript"))


@pytest.mark.parametrize("form", [(48_000, 4, 2), (22_050, 3, 1), (8_000, 1, 1)])
def test_a_transcript_after_audio_stop(served_wyoming, form):
    async def session() -> Transcript:
        async with connected(served_wyoming) as client:
            return await transcribe(client, *form)

    transcript = asyncio.run(session())
    assert "your questions" in transcript.text if form[1] == 1 else SAMPLE_WORDS in transcript.text
    assert transcript.language == "en"


def test_the_chunks_of_a_transcript_are_its_text(served_wyoming):
    async def session() -> list[Event]:
        async with connected(served_wyoming) as client:
            data = audio(16_000, 2, 1)
            kind = {"rate": 16_000, "width": 2, "channels": 1}
            await client.write_event(AudioStart(**kind).event())
            await client.write_event(AudioChunk(audio=data, **kind).event())
            await client.write_event(AudioStop().event())
            events = []
            while not events or events[-1].type != "transcript-stop":
                events.append(await asyncio.wait_for(client.read_event(), SECONDS))
            return events

    events = asyncio.run(session())
    chunks = [each.data["text"] for each in events if each.type == "transcript-chunk"]
    assert [each.type for each in events if each.type != "transcript-chunk"] == [
        "transcript-start",
        "transcript",
        "transcript-stop",
    ]
    assert "".join(chunks).strip() == events[-2].data["text"]


def test_what_is_offered(served_wyoming):
    async def session() -> Info:
        async with connected(served_wyoming) as client:
            await client.write_event(Describe().event())
            return Info.from_event(await event(client, "info"))

    (program,) = asyncio.run(session()).asr
    assert program.supports_transcript_streaming
    assert [(model.name, model.languages, model.installed) for model in program.models] == [("tiny.en", ["en"], True)]


def test_events_that_do_not_fit_are_errors_and_the_connection_goes_on(served_wyoming):
    start = AudioStart(rate=16_000, width=2, channels=1).event()
    chunk = AudioChunk(rate=16_000, width=2, channels=1, audio=b"\0\0").event()
    bad = {
        "a chunk before the start": ([chunk], "no_audio_start"),
        "a stop without audio": ([AudioStop().event()], "no_audio_start"),
        "half a sample": ([start, AudioChunk(16_000, 2, 1, audio=b"abc").event()], "invalid_audio"),
        "another format": ([start, AudioChunk(8_000, 2, 1, audio=b"abcd").event()], "format_changed"),
        "a width of 5": ([AudioStart(16_000, 5, 1).event()], "invalid_audio"),
        "no rate": ([Event("audio-start", {"width": 2, "channels": 1})], "invalid_event"),
        "a rate of text": ([Event("audio-start", {"rate": "x", "width": 2, "channels": 1})], "invalid_event"),
        "an unknown event": ([Event("dance")], "unknown_event"),
        "an unknown model": ([Transcribe(name="nothing").event()], "model_not_found"),
        "an unknown language": ([Transcribe(language="Klingon").event(), start], "unsupported_language"),
    }

    async def session() -> None:
        async with connected(served_wyoming) as client:
            for name, (events, code) in bad.items():
                for each in events:
                    await client.write_event(each)
                assert (await event(client, "error")).data["code"] == code, name
            assert SAMPLE_WORDS in (await transcribe(client)).text

    asyncio.run(session())
    wait_for(lambda: served_wyoming[0].server.admission.live == 0)


@pytest.mark.parametrize(
    "line",
    [b"hello\n", b"[]\n", b"{}\n", b'{"type": 1}\n', b'{"type": "ping", "data_length": "x"}\n',
     json.dumps({"type": "audio-chunk", "payload_length": 1 << 40}).encode() + b"\n", b"x" * 100_000],
)  # fmt: skip
def test_a_header_that_cannot_be_read_ends_the_connection_with_an_error(served_wyoming, line):
    host, port = served_wyoming[1].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
        client.sendall(line)
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert b'"error"' in answer and b"invalid_header" in answer


def test_a_client_that_leaves_in_the_middle_frees_its_place(served_wyoming):
    async def session() -> None:
        async with connected(served_wyoming) as client:
            await client.write_event(AudioStart(rate=16_000, width=2, channels=1).event())
            await event(client, "transcript-start")
            assert served_wyoming[0].server.admission.live == 1

    asyncio.run(session())
    wait_for(lambda: served_wyoming[0].server.admission.live == 0)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "tcp://127.0.0.1", "stdio://", "tcp://192.0.2.1:1"])
def test_an_address_that_is_none(served, address):
    with pytest.raises(OptionError, match="--wyoming"):
        asyncio.run(wyoming.serve_wyoming(served.server, address))


def test_windows_has_no_unix_sockets(served, monkeypatch):
    monkeypatch.setattr(wyoming, "sys", SimpleNamespace(platform="win32"))
    with pytest.raises(OptionError, match=r"--wyoming must be tcp://HOST:PORT on Windows, got unix:///run/x"):
        asyncio.run(wyoming.serve_wyoming(served.server, "unix:///run/x"))
