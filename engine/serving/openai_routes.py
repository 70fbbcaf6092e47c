"""OpenAI's HTTP API: transcriptions, translations, models."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tilewhisper.engine.serving import api_description, openai_answers, openai_fields
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.engine.serving.model_names import OPENAI_NAME
from tilewhisper.engine.serving.openai_fields import Ask
from tilewhisper.engine.serving.requests import Run, transcribing
from tilewhisper.engine.serving.server import server_of
from tilewhisper.engine.serving.streaming import Streamed

router = APIRouter(prefix="/v1")


@router.post(
    "/audio/transcriptions",
    response_class=Response,
    summary="Transcribe a file",
    responses=api_description.TRANSCRIPTION_RESPONSES,
    openapi_extra=api_description.TRANSCRIPTION_BODY,
)
async def transcribe(request: Request) -> Response:
    return await _answer(request, openai_fields.transcription)


@router.post(
    "/audio/translations",
    response_class=Response,
    summary="Translate a file's speech to English",
    responses=api_description.TRANSCRIPTION_RESPONSES,
    openapi_extra=api_description.TRANSLATION_BODY,
)
async def translate(request: Request) -> Response:
    return await _answer(request, openai_fields.translation)


@router.get("/models", summary="List the served models", responses=api_description.ERRORS)
async def list_models(request: Request) -> dict[str, Any]:
    served = server_of(request).pool.names.served
    return {"object": "list", "data": [_model(request, name) for name in (*served, OPENAI_NAME)]}


@router.get(
    "/models/{model:path}", summary="Describe the model that a name stands for", responses=api_description.MODEL_ERRORS
)
async def describe_model(request: Request, model: str) -> dict[str, Any]:
    return _model(request, model)


async def _answer(request: Request, ask: Ask) -> Response:
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(transcribing(request, ask))
        if run.asked.stream:
            return Streamed(_events(run), "text/event-stream", run.start_headers(), stack.pop_all())
        return openai_answers.answer(run, await run.all_segments())


async def _events(run: Run) -> AsyncGenerator[str, None]:
    text = ""
    try:
        async for segment in run.segments():
            # The deltas are the text: it starts without a space.
            delta = segment.text if text else segment.text.lstrip()
            if delta:
                text += delta
                yield openai_answers.delta_event(delta)
        yield openai_answers.done_event(run, text)
        yield openai_answers.DONE
    except RequestError as error:
        yield openai_answers.error_event(error)


def _model(request: Request, name: str) -> dict[str, Any]:
    server = server_of(request)
    root = server.pool.names.resolve(name)
    return {"id": name, "object": "model", "created": server.started, "owned_by": "tilewhisper", "root": root}
