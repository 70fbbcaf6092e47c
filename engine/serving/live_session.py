"""A live transcription of one connection: its model, its place, and a thread for its decoding."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.live import LiveTranscriber
from tilewhisper.engine.pipeline.live_events import Event
from tilewhisper.engine.pipeline.live_options import LiveOptions
from tilewhisper.engine.serving.errors import request_error
from tilewhisper.engine.serving.server import Server
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.constants import SAMPLE_RATE


class LiveSession:
    """A `LiveTranscriber` for the event loop. One call at a time; all raise RequestError."""

    def __init__(self, server: Server, model: WhisperModel, options: LiveOptions, thread: ThreadPoolExecutor) -> None:
        self._server, self._model, self._options, self._thread = server, model, options, thread
        self._transcriber = LiveTranscriber(model, options=options)

    async def feed(self, samples: Samples) -> list[Event]:
        """See `LiveTranscriber.feed`."""
        events = await self._run(lambda: self._transcriber.feed(samples))
        self._server.metrics.audio_seconds.inc(len(samples) / SAMPLE_RATE)
        return events

    async def finish(self) -> list[Event]:
        """See `LiveTranscriber.finish`."""
        return await self._run(self._transcriber.finish)

    async def discard(self) -> list[Event]:
        """See `LiveTranscriber.discard`."""
        return await self._run(self._transcriber.discard)

    async def _run(self, call: Callable[[], list[Event]]) -> list[Event]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except Exception as error:
            self._transcriber = LiveTranscriber(self._model, options=self._options)
            raise request_error(error, "") from error


@asynccontextmanager
async def live_session(server: Server, model: str, options: LiveOptions) -> AsyncIterator[LiveSession]:
    """A session on the served model of this name, which is loaded first if need be. Raises RequestError.

    The model stays leased until the last call in the thread is over, also when the connection is gone.
    """
    async with server.pool.leased(model) as loaded:
        try:
            loaded.check(TranscriptionOptions(language=options.language, task=options.task))
        except Exception as error:
            raise request_error(error, "") from error
        thread = ThreadPoolExecutor(1, "tilewhisper-live")
        try:
            yield LiveSession(server, loaded, options, thread)
        finally:
            await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)
