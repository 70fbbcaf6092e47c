"""One client's transcription: read in one thread, decoded in another, and stopped from the event loop at any time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.transcription import Transcription
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.serving.errors import RequestError, request_error
from tilewhisper.engine.whisper_model import WhisperModel

T = TypeVar("T")


class Work:
    """A transcription of an upload. `stop` ends it within two decode steps, or one block of audio that is read."""

    def __init__(self, path: Path, max_audio_seconds: float) -> None:
        self._path, self._max_audio_seconds = path, max_audio_seconds
        self._reason: RequestError | None = None
        self._stopped = asyncio.Event()
        self._transcription: Transcription | None = None
        self._info: TranscriptionInfo | None = None

    @property
    def transcription(self) -> Transcription:
        assert self._transcription is not None, "not read yet"
        return self._transcription

    @property
    def info(self) -> TranscriptionInfo:
        """The file's language and duration."""
        assert self._info is not None, "not read yet"
        return self._info

    def stop(self, reason: RequestError) -> None:
        """End the work with an error, the first one where it is called again."""
        self._reason = self._reason or reason
        self._stopped.set()
        if self._transcription is not None:
            self._transcription.cancel()

    async def unless_stopped(self, awaitable: Awaitable[T]) -> T:
        """Wait for something that can be given up at once. Raises the reason when the work is stopped."""
        wanted, stopped = asyncio.ensure_future(awaitable), asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({wanted, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                assert self._reason is not None
                raise self._reason
            return wanted.result()
        finally:
            stopped.cancel()
            if not wanted.done():
                wanted.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await wanted

    async def read(self, threads: ThreadPoolExecutor, model: WhisperModel, options: TranscriptionOptions) -> None:
        """Read the audio and find its language. Raises RequestError."""
        await self._run(threads, lambda: self._read(model, options))

    async def segments(self, threads: ThreadPoolExecutor) -> AsyncIterator[Segment]:
        """The segments as they are decoded. Raises RequestError."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Segment | None]()

        def deliver(segment: Segment | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, segment)

        decoding = asyncio.ensure_future(self._run(threads, lambda: self._decode(deliver)))
        try:
            while (segment := await queue.get()) is not None:
                yield segment
            await decoding
        finally:
            # Reached early where the reader of the segments has an error: the thread uses the upload until it ends.
            if not decoding.done():
                self.transcription.cancel()
                with suppress(RequestError):
                    await decoding

    async def _run(self, threads: ThreadPoolExecutor, function: Callable[[], None]) -> None:
        """Run a part of the work in a thread, and outlast it even where this task is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(threads, function)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            self.stop(RequestError(503, "the request was cancelled"))
            await asyncio.wait({future})
            future.exception()
            raise
        except Exception as error:
            raise request_error(error, str(self._path)) from error

    def _read(self, model: WhisperModel, options: TranscriptionOptions) -> None:
        self._transcription, self._info = model.transcribe(self._path, **vars(options), on_read=self._check_audio)
        self._raise_if_stopped()

    def _decode(self, deliver: Callable[[Segment | None], None]) -> None:
        try:
            self._raise_if_stopped()
            for segment in self.transcription:
                deliver(segment)
            self._raise_if_stopped()
        finally:
            deliver(None)

    def _check_audio(self, seconds: float) -> None:
        """End the reading of audio that is too long, or that nobody waits for."""
        self._raise_if_stopped()
        if seconds > self._max_audio_seconds:
            raise RequestError(
                413,
                f"the audio is longer than {self._max_audio_seconds / 60:g} minutes, the limit of this server; cut it",
                param="file",
                code="audio_too_long",
            )

    def _raise_if_stopped(self) -> None:
        if self._reason is not None:
            raise self._reason
