"""Values of transcription options in their normal forms: checks of what callers pass, and parsers of what users type.

A check takes any value and returns its normal form, or raises ValueError with what is allowed; see
`models.option_fields.option`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tilewhisper.engine.encoding.audio_context import parse as parse_audio_context
from tilewhisper.engine.errors import OptionError
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.option_fields import PLAIN, Range, normalized
from tilewhisper.models.tokenizer.languages import DETECT

_TEMPERATURE = Range(0.01, 10)
"""Of sampling. Below, it always draws the most likely token, as 0 does, and far below the divided logits overflow."""
_TOKEN_IDS = "token ids"
_count = PLAIN[int].convert
_number = PLAIN[float].convert


def temperatures(value: Any) -> float | tuple[float, ...]:
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping)
    try:
        numbers = tuple(map(_number, value)) if several else (_number(value),)
    except (TypeError, OverflowError):
        numbers = ()
    if not numbers or not all(number == 0 or number in _TEMPERATURE for number in numbers):
        raise ValueError(f"0 or a number {_TEMPERATURE}, or a sequence of such numbers")
    return numbers if several else numbers[0]


def prompt(value: Any) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else _token_ids(value, 0, f"text or {_TOKEN_IDS} >= 0")


def suppressed(value: Any) -> tuple[int, ...]:
    allowed = f"{_TOKEN_IDS} >= 0, or -1 for the model's own list"
    if isinstance(value, str):  # as in openai-whisper
        try:
            value = parsed_token_ids(value)
        except ValueError:
            raise ValueError(allowed) from None
    return _token_ids(value, -1, allowed)


def _token_ids(value: Any, least: int, allowed: str) -> tuple[int, ...]:
    try:
        if isinstance(value, str | bytes | bytearray | Mapping):
            raise TypeError(value)
        ids = tuple(map(_count, value))  # an iterator can be read only once
    except TypeError:
        raise ValueError(allowed) from None
    if any(token < least for token in ids):
        raise ValueError(allowed)
    return ids


def parsed_token_ids(words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",") if word.strip())
    except ValueError:
        raise ValueError(f"must be {_TOKEN_IDS} such as -1 or 11,13, got {words!r}") from None


def clip_times(value: Any) -> tuple[float, ...]:
    """Seconds of `start,end,start,end,…`."""
    allowed = (
        "seconds >= 0: start,end,start,end,… with no end before its start, of which the last end may be left out; "
        'or a list of {"start": …, "end": …}'
    )
    try:
        times = tuple(_flat_times(value))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(allowed) from None
    if not all(time in Range(0) for time in times) or any(a > b for a, b in zip(times[::2], times[1::2], strict=False)):
        raise ValueError(allowed)
    return times


def _flat_times(value: Any) -> Iterable[float]:
    if isinstance(value, str):
        return [float(word) for word in value.split(",") if word.strip()]
    if isinstance(value, Mapping | bytes | bytearray):
        raise TypeError(value)
    if not isinstance(value, Iterable):
        return [_number(value)]
    edges = ([clip["start"], clip["end"]] if isinstance(clip, Mapping) else [clip] for clip in value)
    return [_number(time) for clip in edges for time in clip]


def clips(value: Any) -> str | tuple[float, ...]:
    times = clip_times(value)
    return value if isinstance(value, str) else times


def vad_parameters(value: Any) -> dict[str, Any] | VadOptions:
    """VadOptions, or some of its fields by name."""
    if not isinstance(value, Mapping | VadOptions):
        raise ValueError("a mapping of VadOptions' fields or a VadOptions")
    given = vars(value) if isinstance(value, VadOptions) else value
    try:
        checked = normalized(VadOptions, given)
    except ValueError as e:
        raise OptionError(f"vad_parameters: {e}") from None
    return VadOptions(**checked) if isinstance(value, VadOptions) else checked


def language(value: Any) -> str | None:
    if not isinstance(value, str):
        raise ValueError("a language's code or English name, or auto")
    return None if value.strip().lower() in DETECT else value


def audio_track(value: Any) -> int | str:
    allowed = "a track's number, from 1 on, or its language code such as en or eng"
    if isinstance(value, str) and value.strip() and not value.strip().isdigit():
        return value.strip()
    try:
        number: int = _count(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(allowed)
    return number


def parsed_track(word: str) -> int | str:
    return int(word) if word.isdigit() else word


def audio_context(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("full, sparse:S, silent or auto")
    try:
        parse_audio_context(value)
    except OptionError as e:
        raise OptionError(f"audio_context: {e}") from None
    return value
