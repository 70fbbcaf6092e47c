"""A request for a transcription, from its arrival to its last segment: queue, upload, model, place, audio, text.

`transcribing` is the way of every front end that takes a file.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import Request

from tilewhisper.engine.pipeline.transcription import Transcription
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.serving import figures
from tilewhisper.engine.serving.errors import RequestError, client_gone, request_error
from tilewhisper.engine.serving.figures import Figures
from tilewhisper.engine.serving.openai_fields import Ask, Asked
from tilewhisper.engine.serving.server import Server, server_of
from tilewhisper.engine.serving.uploads import Form, received
from tilewhisper.engine.serving.work import Work
from tilewhisper.engine.whisper_model import WhisperModel


class Run:
    """A transcription whose audio is read, and whose segments are about to be decoded."""

    def __init__(self, server: Server, asked: Asked, model_name: str, model: WhisperModel, work: Work) -> None:
        self.asked, self.model_name, self.model = asked, model_name, model
        self._server, self._work = server, work
        self._began = time.monotonic()
        self._final: Figures | None = None

    @property
    def info(self) -> TranscriptionInfo:
        return self._work.info

    @property
    def transcription(self) -> Transcription:
        return self._work.transcription

    async def segments(self) -> AsyncIterator[Segment]:
        """The segments as they are decoded. Raises RequestError."""
        first = True
        async for segment in self._work.segments(self._server.threads.decoding):
            if first:
                self._server.metrics.first_segment.observe(time.monotonic() - self._began)
                first = False
            yield segment
        self._final = self.figures()
        self._server.metrics.add_run(self._final)

    async def all_segments(self) -> list[Segment]:
        """All segments, once the last is decoded. Raises RequestError."""
        return [segment async for segment in self.segments()]

    def figures(self) -> Figures:
        """What ran so far, and its cost; final after the last segment."""
        return self._final or figures.figures(self.model_name, self._server.policy_name, self.transcription.report())

    def start_headers(self) -> dict[str, str]:
        """The headers of an answer that begins before the last segment."""
        return figures.start_headers(self.model_name, self._server.policy_name, self.model.backend_labels)


@asynccontextmanager
async def transcribing(request: Request, ask: Ask) -> AsyncIterator[Run]:
    """Receive a form, and read the audio of its file; all that the run uses is free again after the context.

    `ask` reads the form's fields. The run ends within two decode steps, with an error, when the client leaves, the time
    limit is over or the server shuts down. Raises RequestError.
    """
    server = server_of(request)
    with server.admission.entered():
        async with received(request) as form, _working(request, server, form) as work, AsyncExitStack() as stack:
            asked = ask(form.fields, server.settings.beam_size)
            leased = stack.enter_async_context(server.pool.leased(asked.model, asked.backends))
            model = await work.unless_stopped(leased)
            _check(model, asked)
            await work.unless_stopped(stack.enter_async_context(server.admission.place()))
            run = Run(server, asked, server.pool.names.resolve(asked.model), model, work)
            async with AsyncExitStack() as lane:
                await work.unless_stopped(lane.enter_async_context(server.threads.lane(form.file.bytes)))
                await work.read(server.threads.reading, model, asked.options)
            yield run


@asynccontextmanager
async def _working(request: Request, server: Server, form: Form) -> AsyncIterator[Work]:
    """Work that is stopped when the client leaves, the time limit is over or the server shuts down."""
    limit = server.settings.request_seconds
    too_slow = RequestError(
        504,
        f"the transcription took longer than {limit:g} s, the limit of this server; send a shorter file",
        code="timeout",
        headers={"x-should-retry": "false"},
    )
    work = Work(form.file.path, server.settings.max_audio_seconds)
    leaving = asyncio.create_task(_stop_when_gone(request, work))
    timer = asyncio.get_running_loop().call_later(limit, work.stop, too_slow)
    server.works.add(work)
    try:
        yield work
    finally:
        server.works.discard(work)
        timer.cancel()
        leaving.cancel()


async def _stop_when_gone(request: Request, work: Work) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    work.stop(client_gone())


def _check(model: WhisperModel, asked: Asked) -> None:
    """Refuse what the model cannot do, before the audio is read."""
    try:
        model.check(asked.options)
    except Exception as error:
        refused = request_error(error, "")
        if refused.param == "language" and asked.options.task == "translate":
            refused.param = "model"
        raise refused from error
