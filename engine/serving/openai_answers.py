"""Transcriptions in OpenAI's five response formats, and its server-sent events."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.serving import figures
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.engine.serving.requests import Run
from tilewhisper.models.tokenizer.languages import LANGUAGES
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

DONE = "data: [DONE]\n\n"
"""The end of a stream of events."""
_SEGMENT_KEYS = (
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"
)  # fmt: skip
_SUBTITLE_TYPES = {"srt": "text/plain", "vtt": "text/vtt"}


def answer(run: Run, segments: Sequence[Segment]) -> Response:
    """The answer to a finished transcription, in the format that the request asks for."""
    asked, info, headers = run.asked, run.info, run.figures().headers()
    kind = asked.response_format
    if kind in _SUBTITLE_TYPES:
        return PlainTextResponse(WRITERS[kind].render(segments, info), 200, headers, _SUBTITLE_TYPES[kind])
    if kind == "text":
        return PlainTextResponse(text_of(segments) + "\n", 200, headers)
    body = verbose(run, segments) if kind == "verbose_json" else _plain(run, segments)
    return JSONResponse(body, 200, headers)


def text_of(segments: Sequence[Segment]) -> str:
    """The whole text."""
    return "".join(segment.text for segment in segments).strip()


def verbose(run: Run, segments: Sequence[Segment]) -> dict[str, Any]:
    """`verbose_json`, with our figures besides."""
    asked, info = run.asked, run.info
    is_translation = asked.options.task == "translate"
    body: dict[str, Any] = {
        "task": asked.options.task,
        "language": "english" if is_translation else language_name(info),
        "duration": info.duration,
        "text": text_of(segments),
    }
    if asked.granularities != ("word",):
        body["segments"] = [{key: getattr(segment, key) for key in _SEGMENT_KEYS} for segment in segments]
    if "word" in asked.granularities:
        words = [word for segment in segments for word in segment.words or ()]
        body["words"] = [{"word": word.word.strip(), "start": word.start, "end": word.end} for word in words]
    return {**body, "usage": _usage(info), figures.NAME: run.figures().to_json()}


def language_name(info: TranscriptionInfo) -> str:
    """The language's English name, as OpenAI gives it."""
    return LANGUAGES.get(info.language, info.language)


def delta_event(text: str) -> str:
    """More text of a transcription."""
    return event({"type": "transcript.text.delta", "delta": text})


def done_event(run: Run, text: str) -> str:
    """The whole text, after the last delta."""
    body: dict[str, Any] = {"type": "transcript.text.done", "text": text, "usage": _usage(run.info)}
    if run.asked.logprobs:
        body["logprobs"] = _logprobs(run)
    return event({**body, figures.NAME: run.figures().to_json()})


def error_event(error: RequestError) -> str:
    """An error after the answer has begun."""
    return f"event: error\n{event(error.body)}"


def event(body: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _plain(run: Run, segments: Sequence[Segment]) -> dict[str, Any]:
    body: dict[str, Any] = {"text": text_of(segments)}
    if run.asked.options.task == "translate":
        return body
    if run.asked.logprobs:
        body["logprobs"] = _logprobs(run)
    return {**body, "usage": _usage(run.info)}


def _usage(info: TranscriptionInfo) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(info.duration)}


def _logprobs(run: Run) -> list[dict[str, Any]]:
    """Each text token with its bytes, which may be a part of a character, and its log-probability."""
    tokenizer: Tokenizer = run.model.checkpoint.tokenizer
    found = run.transcription.token_logprobs()
    return [_logprob(tokenizer.bytes_of(token), logprob) for token, logprob in found if token < tokenizer.eot]


def _logprob(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode("utf-8", "replace"), "bytes": list(token), "logprob": logprob}
