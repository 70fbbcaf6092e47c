"""whisper.cpp's `POST /inference`: its own form fields, and its answers."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from tilewhisper.engine.options import MAX_HYPOTHESES
from tilewhisper.engine.serving import api_description, openai_answers
from tilewhisper.engine.serving.form_values import FormValues
from tilewhisper.engine.serving.model_names import OPENAI_NAME
from tilewhisper.engine.serving.openai_fields import FORMATS, Asked, options_of, prompt
from tilewhisper.engine.serving.requests import transcribing
from tilewhisper.models.option_fields import Range

router = APIRouter()
FIELDS = (
    "temperature", "temperature_inc", "response_format", "language", "detect_language", "translate", "prompt",
    "no_context", "no_timestamps", "token_timestamps", "beam_size", "best_of", "offset_t", "duration",
    "logprob_thold", "no_speech_thold", "vad",
)  # fmt: skip
_HYPOTHESES = Range(-1, MAX_HYPOTHESES)
_MILLISECONDS = Range(0, 10**9)


@router.post(
    "/inference",
    response_class=Response,
    summary="whisper.cpp's transcription",
    responses=api_description.TRANSCRIPTION_RESPONSES,
    openapi_extra=api_description.INFERENCE_BODY,
)
async def inference(request: Request) -> Response:
    async with transcribing(request, asked) as run:
        segments = await run.all_segments()
        if run.asked.response_format != "verbose_json":
            return openai_answers.answer(run, segments)
        body = openai_answers.verbose(run, segments)
        body["detected_language"] = openai_answers.language_name(run.info)
        body["detected_language_probability"] = run.info.language_probability
        for shown, segment in zip(body["segments"], segments, strict=True):
            shown["words"] = [
                {"word": word.word, "start": word.start, "end": word.end, "probability": word.probability}
                for word in segment.words or ()
            ]
        return JSONResponse(body, 200, run.figures().headers())


def asked(fields: Iterable[tuple[str, str]], beam_size: int) -> Asked:
    """The fields of `/inference`, its defaults those of whisper.cpp's server. Raises RequestError."""
    form = FormValues(fields, FIELDS)
    response_format = form.choice("response_format", FORMATS, "json")
    language = form.text("language")
    if form.truth("detect_language"):
        raise form.wrong("detect_language", "is not supported; verbose_json has the language of every transcription")
    options: dict[str, Any] = {
        "language": language,
        "task": "translate" if form.truth("translate") else "transcribe",
        "initial_prompt": prompt(form),
        "temperature": _temperatures(form),
        "beam_size": beam_size,
        "condition_on_previous_text": not form.truth("no_context"),
        "without_timestamps": form.truth("no_timestamps"),
        "word_timestamps": form.truth("token_timestamps", response_format == "verbose_json")
        and not form.truth("no_timestamps"),
        "log_prob_threshold": form.number("logprob_thold", Range(most=0), -1.0),
        "no_speech_threshold": form.number("no_speech_thold", Range(0, 1), 0.6),
        "vad_filter": form.truth("vad"),
        "clip_timestamps": _clip(form),
    }
    for name in ("beam_size", "best_of"):
        count = form.integer(name, _HYPOTHESES, -1)
        if count == 0:
            raise form.wrong(name, f"must be >= 1 and <= {MAX_HYPOTHESES}, or -1 for the default, got 0")
        if count > 0:
            options[name] = count
    return Asked(OPENAI_NAME, options_of(options), response_format)


def _temperatures(form: FormValues) -> tuple[float, ...]:
    """The first temperature, and those that are tried after it, up to 1."""
    first = form.number("temperature", Range(0, 1), 0.0)
    step = form.number("temperature_inc", Range(0, 1), 0.2)
    if 0 < step < 0.01:
        raise form.wrong("temperature_inc", f"must be 0 or >= 0.01, got {step}")
    count = int((1 - first) / step + 1e-6) if step else 0
    return tuple(round(first + number * step, 6) for number in range(count + 1))


def _clip(form: FormValues) -> str:
    """The part of the file to transcribe, from `offset_t` and `duration` in milliseconds."""
    start = form.number("offset_t", _MILLISECONDS, 0) / 1000
    length = form.number("duration", _MILLISECONDS, 0) / 1000
    return f"{start},{start + length}" if length else f"{start}"
