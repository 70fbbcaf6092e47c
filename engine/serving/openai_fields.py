"""The form fields of OpenAI's transcriptions and translations as options of the engine: honoured or refused, never
ignored.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TEMPERATURES, TranscriptionOptions
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.engine.serving.form_values import FormValues
from tilewhisper.models.option_fields import Range, shown

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED_FORMATS = ("json", "text")
GRANULARITIES = ("word", "segment")
TRANSLATION_FIELDS = ("model", "prompt", "response_format", "temperature")
TRANSCRIPTION_FIELDS = (
    *TRANSLATION_FIELDS, "language", "stream", "timestamp_granularities", "include", "chunking_strategy"
)  # fmt: skip
MAX_PROMPT = 8192
"""Characters. Whisper sees the last 224 tokens of a prompt, some 1000 characters, and OpenAI leaves out what is before
them; a prompt much longer than that is a mistake."""
CHUNKS_TOGETHER = 8
"""Chunks of one file that are decoded together with a chunking strategy."""
_TEMPERATURE = Range(0, 1)
_VAD_NAMES: Mapping[str, tuple[str, Range, bool]] = {
    "threshold": ("threshold", Range(0, 1), False),
    "prefix_padding_ms": ("speech_pad_ms", Range(0, 10_000), True),
    "silence_duration_ms": ("min_silence_duration_ms", Range(0, 60_000), True),
}
"""Keys of OpenAI's `server_vad` -> our option, its range, and whether it is a whole number."""


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    model: str
    """As the client names it."""
    options: TranscriptionOptions
    response_format: str = "json"
    granularities: tuple[str, ...] = ()
    logprobs: bool = False
    stream: bool = False
    backends: tuple[str, ...] = ()
    """`SITES=BACKEND` overrides on top of the server's."""


Ask = Callable[[Sequence[tuple[str, str]], int], Asked]
"""Reads a form's fields, and the server's beam size, which holds where no field says another."""


def transcription(fields: Iterable[tuple[str, str]], beam_size: int) -> Asked:
    """The fields of `/v1/audio/transcriptions`, none of which says how many hypotheses. Raises RequestError."""
    form = FormValues(fields, TRANSCRIPTION_FIELDS, nested=("chunking_strategy",))
    response_format = form.choice("response_format", FORMATS, "json")
    granularities = form.several("timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise form.wrong("timestamp_granularities", f"needs response_format verbose_json, got {response_format}")
    logprobs = bool(form.several("include", ("logprobs",)))
    if logprobs and response_format != "json":
        raise form.wrong("include", f"needs response_format json, got {response_format}")
    stream = form.truth("stream")
    if stream and response_format not in STREAMED_FORMATS:
        raise form.wrong("stream", f"needs response_format {' or '.join(STREAMED_FORMATS)}, got {response_format}")
    options = {
        **_common(form, beam_size),
        "language": form.text("language"),
        "word_timestamps": "word" in granularities,
        **_chunking(form),
    }
    return Asked(_model(form), options_of(options), response_format, granularities, logprobs, stream)


def translation(fields: Iterable[tuple[str, str]], beam_size: int) -> Asked:
    """The fields of `/v1/audio/translations`. Raises RequestError."""
    form = FormValues(fields, TRANSLATION_FIELDS)
    response_format = form.choice("response_format", FORMATS, "json")
    return Asked(_model(form), options_of({**_common(form, beam_size), "task": "translate"}), response_format)


def options_of(options: Mapping[str, Any]) -> TranscriptionOptions:
    """Raises RequestError."""
    try:
        return TranscriptionOptions(**options)
    except OptionError as error:
        raise RequestError(400, str(error), param=str(error).split()[0]) from error


def prompt(form: FormValues) -> str | None:
    """The prompt of a form. Raises RequestError where it is too long."""
    text = form.text("prompt", may_be_empty=True)
    if text and len(text) > MAX_PROMPT:
        raise form.wrong(
            "prompt",
            f"must have at most {MAX_PROMPT} characters, got {len(text)}; Whisper uses only the last 224 tokens",
            code="prompt_too_long",
        )
    return text


def _model(form: FormValues) -> str:
    name = form.text("model")
    if name is None:
        raise form.wrong("model", "is missing; GET /v1/models lists the models")
    return name


def _common(form: FormValues, beam_size: int) -> dict[str, Any]:
    temperature = form.number("temperature", _TEMPERATURE, 0)
    # OpenAI: at 0, the temperature rises by itself until the text passes the thresholds.
    return {"initial_prompt": prompt(form), "temperature": temperature or TEMPERATURES, "beam_size": beam_size}


def _chunking(form: FormValues) -> dict[str, Any]:
    """A file that is cut at silences, its chunks decoded together, where a strategy is given."""
    given = _strategy(form)
    if given is None:
        return {}
    name = "chunking_strategy"
    if given == "auto":
        return {"batch_size": CHUNKS_TOGETHER}
    if not isinstance(given, dict) or given.get("type") != "server_vad":
        raise form.wrong(name, f"must be auto or an object of the type server_vad, got {shown(given)}")
    return {"batch_size": CHUNKS_TOGETHER, "vad_parameters": _vad_parameters(form, given)}


def _vad_parameters(form: FormValues, given: Mapping[str, Any]) -> dict[str, float]:
    name, found = "chunking_strategy", {}
    for key, value in given.items():
        if key == "type":
            continue
        if key not in _VAD_NAMES:
            raise form.wrong(name, f"has an unknown key {shown(key)}; the keys are type, {', '.join(_VAD_NAMES)}")
        option, allowed, is_whole = _VAD_NAMES[key]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if number not in allowed or (is_whole and not number.is_integer()):
            kind = "whole number" if is_whole else "number"
            raise form.wrong(name, f"needs {key} as a {kind} {allowed}, got {shown(value)}")
        found[option] = int(number) if is_whole else number
    return found


def _strategy(form: FormValues) -> Any:
    """The strategy as a word or an object: JSON, or a field for each key, as the openai client sends it."""
    text, nested = form.text("chunking_strategy"), form.nested("chunking_strategy")
    if text and nested:
        raise form.wrong("chunking_strategy", "is given both as a value and by keys; give one of them")
    if text is None:
        return nested or None
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise form.wrong("chunking_strategy", f"is not valid JSON: {shown(text)}") from None
