"""Wyoming, the protocol of Home Assistant's voice assistants: audio is transcribed while it arrives."""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioFormat, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncServer, AsyncTcpServer, AsyncUnixServer

from tilewhisper import __version__
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.pipeline.live_events import Event as LiveEvent
from tilewhisper.engine.pipeline.live_events import Final
from tilewhisper.engine.pipeline.live_options import LiveOptions
from tilewhisper.engine.serving.errors import RequestError, request_error
from tilewhisper.engine.serving.live_session import LiveSession, live_session
from tilewhisper.engine.serving.server import Server
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.models.audio.pcm import PcmStream
from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.errors import AudioError
from tilewhisper.models.tokenizer.languages import LANGUAGES

_MAX_DATA = 1 << 16
_MAX_PAYLOAD = 1 << 20
"""Bytes of the data and of the audio of one event."""
_ATTRIBUTION = Attribution("OpenAI", "https://github.com/openai/whisper")


async def serve_wyoming(server: Server, uri: str) -> None:
    """Answer at tcp://HOST:PORT or unix:///PATH until cancelled. Raises OptionError for any other address."""
    try:
        listener = AsyncServer.from_uri(uri)
    except ValueError as error:
        raise OptionError(f"--wyoming must be tcp://HOST:PORT or unix:///PATH, got {uri}") from error
    connections: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await Connection(server, reader, writer).run()
        finally:
            connections.discard(task)

    listening = await _listen(listener, uri, connected)
    try:
        await listening.serve_forever()
    finally:
        for task in [*connections]:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _listen(listener: AsyncServer, uri: str, connected: Callable[..., Any]) -> asyncio.Server:
    """Raises OptionError."""
    try:
        if isinstance(listener, AsyncTcpServer):
            return await asyncio.start_server(connected, listener.host, listener.port)
        if isinstance(listener, AsyncUnixServer):
            if sys.platform == "win32":
                raise OptionError(f"--wyoming must be tcp://HOST:PORT on Windows, got {uri}")
            return await asyncio.start_unix_server(connected, listener.socket_path)
    except OSError as error:
        raise OptionError(f"--wyoming {uri}: cannot listen there ({error.strerror})") from error
    raise OptionError(f"--wyoming must be tcp://HOST:PORT or unix:///PATH, got {uri}")


class Connection:
    """One client: any number of requests, one after the other."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._asked = Transcribe()
        self._audio = AsyncExitStack()
        self._live: LiveSession | None = None
        self._format: AudioFormat | None = None
        self._pcm: PcmStream | None = None
        self._text = ""
        self._language: str | None = None

    async def run(self) -> None:
        """Answer until the client leaves; a header that cannot be read ends the connection with an error."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while event := await self._read():
                    try:
                        await self._handle(event)
                    except RequestError as error:
                        await self._fail(error)
        finally:
            await self._audio.aclose()
            self._writer.close()

    async def _read(self) -> Event | None:
        """The client's next event; None at the end."""
        try:
            line = await self._reader.readline()
            return await self._parsed(line) if line else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            problem = "the header must be a line of JSON with a string `type` and the right lengths"
            await self._fail(RequestError(400, problem, code="invalid_header"))
            return None  # where the next header begins is not known

    async def _parsed(self, line: bytes) -> Event:
        header = json.loads(line)
        kind, data = header["type"], header.get("data") or {}
        data_length, payload_length = header.get("data_length") or 0, header.get("payload_length") or 0
        if not isinstance(kind, str) or not 0 <= data_length <= _MAX_DATA or not 0 <= payload_length <= _MAX_PAYLOAD:
            raise ValueError
        if data_length:
            data = {**data, **json.loads(await self._reader.readexactly(data_length))}
        return Event(kind, dict(data), await self._reader.readexactly(payload_length) if payload_length else None)

    async def _handle(self, event: Event) -> None:
        """Raises RequestError."""
        try:
            if Describe.is_type(event.type):
                await self._write(await self._info())
            elif Ping.is_type(event.type):
                await self._write(Pong(event.data.get("text")).event())
            elif Transcribe.is_type(event.type):
                self._asked = Transcribe.from_event(event)
                self._server.pool.names.resolve(self._asked.name or self._server.pool.names.default)
            elif AudioStart.is_type(event.type):
                await self._start(AudioStart.from_event(event))
            elif AudioChunk.is_type(event.type):
                await self._chunk(AudioChunk.from_event(event))
            elif AudioStop.is_type(event.type):
                await self._stop()
            elif not SelectProgram.is_type(event.type):  # there is one program
                await self._write(Error(f"unknown event {event.type[:60]!r}", "unknown_event").event())
        except (KeyError, TypeError, AttributeError) as error:
            message = f"{event.type[:60]} needs other fields: {type(error).__name__} {error}"
            raise RequestError(400, message[:200], code="invalid_event") from error
        except AudioError as error:
            raise request_error(error, "") from error

    async def _info(self) -> Event:
        """What the server offers."""
        names = self._server.pool.names
        async with self._server.pool.leased(names.default):
            loaded = self._server.pool.loaded()
        models = [
            AsrModel(name, _ATTRIBUTION, True, f"Whisper {name}", None, languages=_languages(name, loaded.get(name)))
            for name in names.served
        ]
        program = AsrProgram(
            "tilewhisper",
            Attribution("tilewhisper", ""),
            True,
            "Whisper, each encoder product on the backend of the server's policy",
            __version__,
            models=models,
            supports_transcript_streaming=True,
        )
        return Info(asr=[program]).event()

    async def _start(self, start: AudioStart) -> None:
        await self._end_audio()
        pcm = PcmStream(start.rate, start.width, start.channels)
        self._audio.enter_context(self._server.admission.live_place())
        names = self._server.pool.names
        options = LiveOptions(language=self._asked.language)
        session = live_session(self._server, names.resolve(self._asked.name or names.default), options)
        self._live = await self._audio.enter_async_context(session)
        self._format, self._pcm = AudioFormat(start.rate, start.width, start.channels), pcm
        await self._write(TranscriptStart(language=self._asked.language).event())

    async def _chunk(self, chunk: AudioChunk) -> None:
        if self._live is None or self._pcm is None:
            raise RequestError(400, "audio-chunk without audio-start before it", code="no_audio_start")
        if AudioFormat(chunk.rate, chunk.width, chunk.channels) != self._format:
            raise RequestError(400, "the audio-chunk has another format than the audio-start", code="format_changed")
        await self._send_final(await self._live.feed(self._pcm.feed(chunk.audio)))

    async def _stop(self) -> None:
        if self._live is None or self._pcm is None:
            raise RequestError(400, "audio-stop without audio-start before it", code="no_audio_start")
        await self._send_final(await self._live.feed(self._pcm.finish()))
        await self._send_final(await self._live.finish())
        text, language = self._text.strip(), self._language or self._asked.language
        await self._end_audio()
        self._asked = Transcribe()
        await self._write(Transcript(text, language=language).event())
        await self._write(TranscriptStop().event())

    async def _send_final(self, events: list[LiveEvent]) -> None:
        for event in events:
            if isinstance(event, Final):
                self._text += event.text
                self._language = event.language
                await self._write(TranscriptChunk(event.text).event())

    async def _fail(self, error: RequestError) -> None:
        """Answer with an error, and forget the audio so far."""
        await self._end_audio()
        await self._write(Error(error.message, error.code).event())

    async def _end_audio(self) -> None:
        self._live = self._pcm = self._format = None
        self._text, self._language = "", None
        await self._audio.aclose()

    async def _write(self, event: Event) -> None:
        await async_write_event(event, self._writer)


def _languages(name: str, model: WhisperModel | None) -> list[str]:
    """The languages of a served model; of one that is not loaded yet, by its name."""
    if model is not None:
        return model.supported_languages
    return ["en"] if catalog.is_english_only(name) else list(LANGUAGES)
