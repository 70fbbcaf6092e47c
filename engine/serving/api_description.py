"""The OpenAPI description of what the routes read and answer by themselves: multipart bodies and errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from tilewhisper.engine.serving.openai_fields import FORMATS, GRANULARITIES, MAX_PROMPT

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_TEXT = {"type": "string"}
_MODEL = {**_TEXT, "description": "a name of GET /v1/models, an official name, or whisper-1"}
_LANGUAGE = {**_TEXT, "description": "code or English name; detected where it is left out"}
_PROMPT = {**_TEXT, "maxLength": MAX_PROMPT, "description": "text before the audio; its last 224 tokens are used"}
_TEMPERATURE = {"type": "number", "minimum": 0, "maximum": 1, "default": 0}
_TRUTH = {"type": "boolean", "default": False}
_FORMAT = {"type": "string", "enum": [*FORMATS], "default": "json"}
_COMMON = {"model": _MODEL, "prompt": _PROMPT, "response_format": _FORMAT, "temperature": _TEMPERATURE}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


def _body(fields: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["file", *required],
        "properties": {"file": {"type": "string", "format": "binary"}, **fields},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


ERRORS: dict[int | str, dict[str, Any]] = {401: _error("No key, or a wrong one")}
MODEL_ERRORS: dict[int | str, dict[str, Any]] = {**ERRORS, 404: _error("No such model"), 422: _error("No such model")}
HEALTH: dict[int | str, dict[str, Any]] = {
    200: {"description": "Ready"},
    503: {"description": "Loading, failed or stopping; the body says which"},
}
TRANSCRIPTION_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text, in the format that the request asks for",
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}},
            "text/plain": {"schema": _TEXT},
            "text/vtt": {"schema": _TEXT},
            "text/event-stream": {"schema": _TEXT},
        },
    },
    400: _error("A field, the multipart body or the audio is wrong"),
    **ERRORS,
    404: _error("No such model"),
    408: _error("The upload took too long"),
    413: _error("The file or its audio is above the server's limit"),
    415: _error("The body is not multipart/form-data"),
    429: _error("The queue is full; Retry-After says when to try again"),
    500: _error("The server failed"),
    503: _error("The server is shutting down, or short of memory"),
    504: _error("The time limit of a request is over"),
    507: _error("The server has no room for temporary files"),
}
TRANSCRIPTION_BODY = _body(
    {
        **_COMMON,
        "language": _LANGUAGE,
        "stream": _TRUTH,
        "timestamp_granularities[]": {
            "type": "array", "items": {"type": "string", "enum": [*GRANULARITIES]}, "description": "needs verbose_json"
        },
        "include[]": {
            "type": "array", "items": {"type": "string", "enum": ["logprobs"]}, "description": "needs json"
        },
        "chunking_strategy": {
            **_TEXT,
            "description": 'auto, or {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, '
            '"silence_duration_ms": 500}',
        },
    },
    required=["model"],
)  # fmt: skip
TRANSLATION_BODY = _body(_COMMON, required=["model"])
INFERENCE_BODY = _body(
    {
        "language": _LANGUAGE,
        "translate": _TRUTH,
        "prompt": _PROMPT,
        "response_format": _FORMAT,
        "temperature": _TEMPERATURE,
        "temperature_inc": {**_TEMPERATURE, "default": 0.2},
        "beam_size": {"type": "integer"},
        "best_of": {"type": "integer"},
        "offset_t": {"type": "integer", "minimum": 0},
        "duration": {"type": "integer", "minimum": 0},
        "logprob_thold": {"type": "number", "maximum": 0, "default": -1},
        "no_speech_thold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.6},
        "no_context": _TRUTH,
        "no_timestamps": _TRUTH,
        "token_timestamps": _TRUTH,
        "detect_language": _TRUTH,
        "vad": _TRUTH,
    },
    required=[],
)
