"""The page's JSON routes: a model's encoder, a transcription with other backends, and the error between two runs."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tilewhisper.engine.options import TASKS
from tilewhisper.engine.serving import comparison, page_answers
from tilewhisper.engine.serving.errors import RequestError, request_error
from tilewhisper.engine.serving.form_values import FormValues
from tilewhisper.engine.serving.openai_fields import Asked, options_of
from tilewhisper.engine.serving.requests import Run, transcribing
from tilewhisper.engine.serving.server import server_of
from tilewhisper.engine.serving.streaming import Streamed
from tilewhisper.engine.serving.uploads import received
from tilewhisper.engine.tuning.evaluation import relative_error

router = APIRouter(prefix="/page", include_in_schema=False)


@router.get("/encoder")
async def encoder(request: Request, model: str) -> dict[str, Any]:
    """A model's encoder, and the backends that can run here."""
    server = server_of(request)
    async with server.pool.leased(model) as loaded:
        return {"policy": server.policy_name, **page_answers.encoder(loaded, server.settings.kernels)}


@router.post("/transcriptions")
async def transcribe(request: Request) -> Response:
    """JSON lines: `start`, a `segment` as each is decoded, and `end` with the files and the report, or `error`."""
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(transcribing(request, _asked))
        return Streamed(_lines(run), "application/x-ndjson", run.start_headers(), stack.pop_all())


@router.post("/encoder-error")
async def encoder_error(request: Request) -> dict[str, float]:
    """The relative error of the encoder states with the backends `after` against those with the backends `before`."""
    server = server_of(request)
    with server.admission.entered():
        async with received(request) as form, server.admission.place():
            values = FormValues(form.fields, ("model", "before", "after"))
            states = []
            # One after the other, so that two models with other backends need not be in memory together.
            for side in ("before", "after"):
                async with server.pool.leased(_model(values), _backends(values, side)) as model:
                    states.append(await asyncio.to_thread(_states, model, form.file.path))
    error = float(relative_error(states[1], expected=states[0]))
    if not math.isfinite(error):
        raise RequestError(500, "the encoder states are not finite, so they cannot be compared", code="model_failed")
    return {"error": error}


def _asked(fields: Sequence[tuple[str, str]], beam_size: int) -> Asked:
    values = FormValues(fields, ("model", "language", "task", "backends"))
    options = {
        "language": values.text("language"),
        "task": values.choice("task", TASKS, "transcribe"),
        "beam_size": beam_size,
    }
    return Asked(_model(values), options_of(options), backends=_backends(values, "backends"))


def _model(values: FormValues) -> str:
    name = values.text("model")
    if name is None:
        raise values.wrong("model", "is missing")
    return name


def _backends(values: FormValues, name: str) -> tuple[str, ...]:
    """Overrides `SITES=BACKEND`, one a line."""
    return tuple((values.text(name, may_be_empty=True) or "").split())


def _states(model: Any, path: Any) -> Any:
    try:
        return comparison.first_states(model, path)
    except Exception as error:
        raise request_error(error, str(path)) from error


async def _lines(run: Run) -> AsyncGenerator[str, None]:
    def line(kind: str, content: dict[str, Any]) -> str:
        return json.dumps({"type": kind, **content}) + "\n"

    segments = []
    try:
        yield line("start", page_answers.start(run.info))
        async for segment in run.segments():
            segments.append(segment)
            yield line("segment", page_answers.segment(segment))
        downloads = page_answers.downloads(segments, run.info)
        yield line("end", {"downloads": downloads, "report": page_answers.report(run.transcription.report())})
    except RequestError as error:
        yield line("error", error.body)
