"""The realtime WebSocket, spoken by OpenAI's client: server-side turns, commits by the client, and bad events."""

import asyncio
import json
from base64 import b64encode
from contextlib import asynccontextmanager

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SAMPLE, SAMPLE_WORDS
from running_server import running, wait_for

pytest.importorskip("silero_vad", reason="live transcription needs pip install 'tilewhisper[vad]'")
openai = pytest.importorskip("openai")
TRANSCRIPTION = "conversation.item.input_audio_transcription"
SECONDS = 20


def pcm(rate: int) -> bytes:
    """The sample and a second of silence."""
    samples, own = soundfile.read(SAMPLE, dtype="float32")
    resampled = soxr.resample(np.pad(samples, (0, own)), own, rate)
    return (resampled * 32767).astype("<i2").tobytes()


@asynccontextmanager
async def connected(served, **options):
    client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", **{"api_key": "none"} | options)
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await asyncio.wait_for(connection.recv(), SECONDS)
        assert created.type == "session.created"
        yield connection


def settings(**fields) -> dict:
    transcription = {"model": "whisper-1", "language": "en"}
    return {"type": "transcription", "audio": {"input": {"transcription": transcription, **fields}}}


async def send(connection, audio: bytes, size: int = 9_600) -> None:
    for first in range(0, len(audio), size):
        await connection.input_audio_buffer.append(audio=b64encode(audio[first : first + size]).decode())


async def received_until(connection, kind: str) -> list:
    events = []
    while not events or events[-1].type != kind:
        events.append(await asyncio.wait_for(connection.recv(), SECONDS))
    return events


def of(events: list, kind: str) -> list:
    return [event for event in events if event.type == kind]


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_turns_of_the_server(served, rate):
    async def session() -> list:
        async with connected(served) as connection:
            await connection.session.update(session=settings(format={"type": "audio/pcm", "rate": rate}))
            updated = await received_until(connection, "session.updated")
            assert updated[0].session.audio.input.format.rate == rate
            await send(connection, pcm(rate))
            return await received_until(connection, f"{TRANSCRIPTION}.completed")

    events = asyncio.run(session())
    (done,) = of(events, f"{TRANSCRIPTION}.completed")
    assert SAMPLE_WORDS in done.transcript
    assert "".join(event.delta for event in of(events, f"{TRANSCRIPTION}.delta")) == done.transcript
    kinds = [event.type for event in events if event.type.startswith("input_audio_buffer")]
    assert [kind.split(".")[1] for kind in kinds] == ["speech_started", "speech_stopped", "committed"]
    assert {event.item_id for event in events} == {done.item_id}
    seconds = soundfile.info(SAMPLE).duration
    assert of(events, "input_audio_buffer.speech_started")[0].audio_start_ms < 500
    assert seconds - 1 < of(events, "input_audio_buffer.speech_stopped")[0].audio_end_ms / 1000 < seconds + 0.1


def test_items_that_the_client_commits(served):
    async def session() -> list:
        async with connected(served) as connection:
            await connection.session.update(session=settings(turn_detection=None))
            await connection.input_audio_buffer.commit()
            (error,) = of(await received_until(connection, "error"), "error")
            assert error.error.code == "input_audio_buffer_commit_empty"
            await send(connection, pcm(24_000))
            await connection.input_audio_buffer.clear()
            await received_until(connection, "input_audio_buffer.cleared")
            done = []
            for _ in range(2):
                await send(connection, pcm(24_000))
                await connection.input_audio_buffer.commit()
                done += of(await received_until(connection, f"{TRANSCRIPTION}.completed"), f"{TRANSCRIPTION}.completed")
            return done

    first, second = asyncio.run(session())
    assert first.item_id != second.item_id
    assert first.transcript.count(SAMPLE_WORDS) == second.transcript.count(SAMPLE_WORDS) == 1
    assert first.usage.seconds == pytest.approx(len(pcm(24_000)) / 48_000, abs=0.01)


BAD = {
    "no JSON": ("{", "invalid_json"),
    "no object": ("[1]", "invalid_event"),
    "no type": ('{"audio": ""}', "invalid_event"),
    "an unknown event": ('{"type": "response.create", "event_id": "mine"}', "unknown_event"),
    "audio that is no string": ('{"type": "input_audio_buffer.append", "audio": 1}', "invalid_audio"),
    "invalid base64": ('{"type": "input_audio_buffer.append", "audio": "?"}', "invalid_audio"),
    "half a sample": ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_audio"),
    "an unknown model": (json.dumps({"type": "session.update", "session": {"audio": {"input": {
        "transcription": {"model": "nothing"}}}}}), "model_not_found"),
    "an unknown language": (json.dumps({"type": "session.update", "session": {"audio": {"input": {
        "transcription": {"language": "Klingon"}}}}}), "unsupported_language"),
    "another rate": (json.dumps({"type": "session.update", "session": {"audio": {"input": {
        "format": {"type": "audio/pcm", "rate": 8000}}}}}), "invalid_value"),
    "another format": (json.dumps({"type": "session.update", "session": {"audio": {"input": {
        "format": {"type": "audio/pcmu"}}}}}), "invalid_value"),
    "a wrong threshold": (json.dumps({"type": "session.update", "session": {"audio": {"input": {
        "turn_detection": {"type": "server_vad", "threshold": "high"}}}}}), "invalid_value"),
    "an unknown field": (json.dumps({"type": "session.update", "session": {"tools": [1]}}), "invalid_value"),
    "no session": ('{"type": "session.update"}', "invalid_value"),
    "a conversation": ('{"type": "session.update", "session": {"type": "realtime"}}', "invalid_value"),
}  # fmt: skip


def test_bad_events_are_answered_and_the_session_goes_on(served):
    async def session() -> None:
        async with connected(served) as connection:
            for name, (message, code) in BAD.items():
                await connection.send_raw(message)
                (error,) = await received_until(connection, "error")
                assert error.error.code == code, name
                assert error.error.type == "invalid_request_error"
            await connection.send({"type": "input_audio_buffer.append", "audio": "A" * ((15 << 20) + 4)})
            (error,) = await received_until(connection, "error")
            assert error.error.code == "audio_too_large"
            await send(connection, pcm(24_000), 48_000)
            events = await received_until(connection, f"{TRANSCRIPTION}.completed")
            assert SAMPLE_WORDS in events[-1].transcript

    asyncio.run(session())


def test_the_place_of_a_client_that_leaves_is_free_again(served):
    async def session() -> None:
        async with connected(served) as connection:
            await send(connection, pcm(24_000)[:96_000])
            assert served.server.admission.live == 1

    asyncio.run(session())
    wait_for(lambda: served.server.admission.live == 0)


def test_keys_and_places(lent):
    async def session(server, **options) -> None:
        async with connected(server, **options) as _:
            with pytest.raises(Exception, match="429"):
                async with connected(server, **options):
                    pass

    async def refused(server) -> None:
        with pytest.raises(Exception, match="401"):
            async with connected(server, api_key="wrong"):
                pass

    with running(lent, policy="torch", api_keys=("right",), max_live=1) as server:
        asyncio.run(refused(server))
        asyncio.run(session(server, api_key="right"))
