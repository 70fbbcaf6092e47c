"""The options of a transcription: each is one field, with its help, range and flag.

Names, defaults and order are faster-whisper's; the keyword-only fields are openai-whisper's or ours. The record checks
itself when it is made. The signature and docstring of `WhisperModel.transcribe` (models/option_signature.py) and the
flags of `tilewhisper transcribe` (commands/flags.py) are derived from the fields (models/option_fields.py).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from tilewhisper.engine.encoding.audio_context import parse as parse_audio_context
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.audio.vad_options import VAD_GROUP, VadOptions
from tilewhisper.models.constants import TIMESTAMPS_PER_SECOND, WINDOW_SECONDS
from tilewhisper.models.option_fields import (
    PLAIN,
    Range,
    normalized,
    option,
    option_fields,
    unknown,
)
from tilewhisper.models.tokenizer.languages import DETECT

if TYPE_CHECKING:
    from tilewhisper.models.checkpoint.generation_config import GenerationConfig
    from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_SPEECH = "language, prompt and clips"
_FILES = "audio files"
WORDS_GROUP = "words and subtitles"

TASKS = ("transcribe", "translate")
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TEXT_CONTEXT = 448
"""Tokens of Whisper's text context, prompt included."""
MAX_HYPOTHESES = 64
"""Each hypothesis has its own self-attention cache: 64 of them take 0.7 GB with base and 9.4 GB with large-v3."""
MAX_BATCH_SIZE = 256
"""Each window has its own cross-attention cache: 256 of them take 9.4 GB with base. 60 windows were no faster than 32
(60 clips of base)."""
MAX_SEED = 2**63 - 1
_TEMPERATURE = Range(0.01, 10)
"""Of sampling. Below, it always draws the most likely token, as 0 does, and far below the divided logits overflow."""
_TOKEN_IDS = "token ids"
_count = PLAIN[int].convert
_number = PLAIN[float].convert


def _temperatures(value: Any) -> float | tuple[float, ...]:
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping)
    try:
        numbers = tuple(map(_number, value)) if several else (_number(value),)
    except (TypeError, OverflowError):
        numbers = ()
    if not numbers or not all(number == 0 or number in _TEMPERATURE for number in numbers):
        raise ValueError(f"0 or a number {_TEMPERATURE}, or a sequence of such numbers")
    return numbers if several else numbers[0]


def _prompt(value: Any) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else _token_ids(value, 0, f"text or {_TOKEN_IDS} >= 0")


def _suppressed(value: Any) -> tuple[int, ...]:
    allowed = f"{_TOKEN_IDS} >= 0, or -1 for the model's own list"
    if isinstance(value, str):  # as in openai-whisper
        try:
            value = _parsed_token_ids(value)
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


def _parsed_token_ids(words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",") if word.strip())
    except ValueError:
        raise ValueError(f"must be {_TOKEN_IDS} such as -1 or 11,13, got {words!r}") from None


def _clip_times(value: Any) -> tuple[float, ...]:
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


def _clips(value: Any) -> str | tuple[float, ...]:
    times = _clip_times(value)
    return value if isinstance(value, str) else times


def _vad_parameters(value: Any) -> dict[str, Any] | VadOptions:
    """VadOptions, or some of its fields by name."""
    if not isinstance(value, Mapping | VadOptions):
        raise ValueError("a mapping of VadOptions' fields or a VadOptions")
    given = vars(value) if isinstance(value, VadOptions) else value
    try:
        checked = normalized(VadOptions, given)
    except ValueError as e:
        raise OptionError(f"vad_parameters: {e}") from None
    return VadOptions(**checked) if isinstance(value, VadOptions) else checked


def _language(value: Any) -> str | None:
    if not isinstance(value, str):
        raise ValueError("a language's code or English name, or auto")
    return None if value.strip().lower() in DETECT else value


def _audio_track(value: Any) -> int | str:
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


def _parsed_track(word: str) -> int | str:
    return int(word) if word.isdigit() else word


def _audio_context(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("full, sparse:S, silent or auto")
    try:
        parse_audio_context(value)
    except OptionError as e:
        raise OptionError(f"audio_context: {e}") from None
    return value


@dataclass(frozen=True)
class TranscriptionOptions:
    """Everything a caller can choose about a transcription. Raises OptionError for a value that is not allowed."""

    language: str | None = option(
        None,
        "code, English name or tag such as en-US; detected when not given, or auto",
        check=_language,
        parse=_language,
        metavar="LANGUAGE",
        group=_SPEECH,
    )
    task: str = option("transcribe", "translate gives English text", TASKS, group=_SPEECH)
    log_progress: bool = option(False, "show a progress bar on standard error", flag=False)
    beam_size: int = option(5, "hypotheses followed at temperature 0; 1 is greedy", Range(1, MAX_HYPOTHESES), none=1)
    best_of: int = option(
        5, "samples drawn at temperatures above 0; the best is taken", Range(1, MAX_HYPOTHESES), none=1
    )
    patience: float = option(
        1.0,
        "a beam search ends with beam_size * patience finished hypotheses",
        Range(0, TEXT_CONTEXT, above=True),
        none=1.0,
    )
    length_penalty: float = option(
        1.0, "hypotheses are ranked by log-probability / length ** length_penalty", Range(-10, 10), none=1.0
    )
    repetition_penalty: float = option(1.0, "above 1, repeated tokens become less likely", Range(0.01, 100))
    no_repeat_ngram_size: int = option(0, "no run of this many tokens occurs twice; 0 is off", Range(0, TEXT_CONTEXT))
    temperature: float | Sequence[float] = option(
        TEMPERATURES,
        "0 takes the most likely text, above 0 it is sampled; of several, the next is tried when a text fails "
        "compression_ratio_threshold or log_prob_threshold",
        check=_temperatures,
        flag=False,
    )
    compression_ratio_threshold: float | None = option(
        2.4, "text that zlib shrinks by more than this factor repeats itself and is decoded again", Range(0)
    )
    log_prob_threshold: float | None = option(
        -1.0,
        "text of a lower mean log-probability is decoded again at the next temperature",
        Range(most=0),
        alias="logprob_threshold",
    )
    no_speech_threshold: float | None = option(
        0.6, "a window with a higher no-speech probability and text below log_prob_threshold is silence", Range(0, 1)
    )
    condition_on_previous_text: bool = option(True, "show each window the text before it", group=_SPEECH)
    prompt_reset_on_temperature: float = option(
        0.5, "text decoded at a higher temperature is not shown to the next window", Range(0), group=_SPEECH
    )
    initial_prompt: str | Iterable[int] | None = option(
        None,
        "text (in Python also token ids) shown to the first window as if it came before",
        check=_prompt,
        group=_SPEECH,
    )
    prefix: str | None = option(None, "text that the first window begins with", group=_SPEECH)
    suppress_blank: bool = option(True, "no window begins with a blank")
    suppress_tokens: Sequence[int] | None = option(
        (-1,),
        "token ids that are never chosen; -1 stands for the model's own list",
        check=_suppressed,
        parse=_parsed_token_ids,
        metavar="IDS",
    )
    without_timestamps: bool = option(False, "decode text only; each window is one segment")
    max_initial_timestamp: float | None = option(
        None,
        "the first segment of a window starts at most this many seconds into it; by default the limit of the "
        "checkpoint, usually 1.0",
        Range(0, WINDOW_SECONDS),
    )
    word_timestamps: bool = option(False, "find the time of each word", group=WORDS_GROUP)
    prepend_punctuations: str = option(PUNCTUATION.prepended, "marks joined to the word after them", group=WORDS_GROUP)
    append_punctuations: str = option(PUNCTUATION.appended, "marks joined to the word before them", group=WORDS_GROUP)
    multilingual: bool = option(False, "detect the language of every window with speech", group=_SPEECH)
    vad_filter: bool = option(False, "cut out silence before decoding; needs tilewhisper[vad]", group=VAD_GROUP)
    vad_parameters: Mapping[str, Any] | VadOptions | None = option(  # noqa: RUF009 (makes a dataclass field)
        None, "VadOptions, or some of its fields by name", check=_vad_parameters, flag=False
    )
    max_new_tokens: int | None = option(
        None, "most tokens of a window; by default half the text context", Range(1, TEXT_CONTEXT)
    )
    chunk_length: int | None = option(
        None, f"most seconds of audio in a window; by default {WINDOW_SECONDS}", Range(1, WINDOW_SECONDS)
    )
    clip_timestamps: str | float | Sequence[float] | Sequence[Mapping[str, float]] = option(
        "0",
        "seconds to transcribe: start,end,start,end,…; the last end may be left out, and clips may overlap",
        check=_clips,
        metavar="TIMES",
        group=_SPEECH,
    )
    hallucination_silence_threshold: float | None = option(
        None,
        "with word_timestamps, skip silence longer than this many seconds around unlikely text",
        Range(0),
        group=WORDS_GROUP,
    )
    hotwords: str | None = option(
        None, "words shown to every window as if they came before; not with a prefix", group=_SPEECH
    )
    language_detection_threshold: float | None = option(
        0.5, "a language at least this probable ends the detection", Range(0, 1), group=_SPEECH
    )
    language_detection_segments: int = option(
        1, "most windows with speech used to detect the language", Range(1, 1000), group=_SPEECH
    )
    _: KW_ONLY
    carry_initial_prompt: bool = option(
        False, "show the initial prompt to every window, not only the first", group=_SPEECH
    )
    batch_size: int | None = option(
        None,
        "cut the file at silences (needs tilewhisper[vad]) and decode this many chunks together, each without the text "
        "before it; by default the file is decoded in order",
        Range(1, MAX_BATCH_SIZE),
        flag=False,
    )
    seed: int = option(0, "seed of sampling: the same seed gives the same text", Range(0, MAX_SEED))
    audio_context: str = option(
        "auto",
        "how much of the silence after a short window's audio is encoded: full, sparse:S (every S-th position), silent "
        "or auto; a window that then decodes badly is encoded in full",
        check=_audio_context,
        metavar="HOW",
    )
    audio_track: int | str | None = option(
        None,
        "number, from 1 on, or language code of the audio track to transcribe; by default the file's main one",
        check=_audio_track,
        parse=_parsed_track,
        metavar="TRACK",
        group=_FILES,
    )
    strict_audio: bool = option(
        False,
        "refuse a truncated or damaged file; by default, what can be decoded is transcribed, and a warning says what "
        "is missing",
        group=_FILES,
    )

    def __post_init__(self) -> None:
        validate(self)

    @classmethod
    def of(cls, *args: Any, **options: Any) -> Self:
        """The options of a call. Raises TypeError, with near names, for an unknown option."""
        if problem := unknown(options, option_fields(cls)):
            raise TypeError(problem)
        return cls(*args, **options)

    def check(self, tokenizer: "Tokenizer", generation_config: "GenerationConfig") -> None:
        """Raise LanguageError or OptionError for a language, task or token id that the checkpoint does not have."""
        tokenizer.prompt(self.language or "en", self.task, True)
        self.suppressed(tokenizer, generation_config)
        if not isinstance(self.initial_prompt, str | None):
            _check_ids("initial_prompt", tuple(self.initial_prompt), tokenizer)

    @property
    def temperatures(self) -> tuple[float, ...]:
        given = self.temperature
        return tuple(given) if isinstance(given, Sequence) else (given,)

    @property
    def most_hypotheses(self) -> int:
        """The most hypotheses of a window that are followed at once."""
        return max(self.beam_size if temperature == 0 else self.best_of for temperature in self.temperatures)

    @property
    def longest_chunk(self) -> int:
        """Seconds of audio in a window, at most."""
        return self.chunk_length or WINDOW_SECONDS

    @property
    def clips(self) -> tuple[tuple[float, float], ...]:
        """(start, end) of each clip to transcribe, in seconds, in the given order; the last may end at infinity."""
        times = list(_clip_times(self.clip_timestamps)) or [0.0]
        if len(times) % 2:
            times.append(math.inf)
        return tuple(zip(times[::2], times[1::2], strict=True))

    @property
    def vad_options(self) -> VadOptions | None:
        """The VAD's options; None where it does not run. As in faster-whisper, a batch has defaults of its own."""
        if not self.vad_filter and self.batch_size is None:
            return None
        if isinstance(given := self.vad_parameters, VadOptions):
            return given
        cutting = {"max_speech_duration_s": self.longest_chunk, "min_silence_duration_ms": 160}
        return VadOptions(**{**({} if self.batch_size is None else cutting), **(given or {})})

    def suppressed(self, tokenizer: "Tokenizer", generation_config: "GenerationConfig") -> tuple[int, ...]:
        """The suppressed token ids, ascending, -1 replaced by the checkpoint's own.

        Raises OptionError for an id outside the vocabulary.
        """
        given = tuple(self.suppress_tokens or ())
        chosen = [token for token in given if token != -1]
        _check_ids("suppress_tokens", chosen, tokenizer)
        own = generation_config.suppress_tokens if -1 in given else ()
        return tuple(sorted({*own, *chosen}))

    def suppressed_first(self, generation_config: "GenerationConfig") -> tuple[int, ...]:
        """The token ids that are suppressed at a window's first position."""
        return generation_config.begin_suppress_tokens if self.suppress_blank else ()

    def max_initial_timestamp_index(self, generation_config: "GenerationConfig") -> int | None:
        """The last timestamp, in steps of 0.02 s, that a window's first segment may start at; None is no limit."""
        if self.max_initial_timestamp is None:
            return generation_config.max_initial_timestamp_index
        return round(self.max_initial_timestamp * TIMESTAMPS_PER_SECOND)


def validate(record: Any) -> None:
    """Check the option fields of a frozen record and store their normal forms. Raises OptionError."""
    try:
        values = normalized(type(record), {field.name: getattr(record, field.name) for field in fields(record)})
    except ValueError as e:
        raise OptionError(str(e)) from None
    for name, value in values.items():
        object.__setattr__(record, name, value)


def check_batch_size(batch_size: Any) -> None:
    """Raise OptionError for a number of files or windows decoded together that is neither allowed nor None."""
    TranscriptionOptions(batch_size=batch_size)


def _check_ids(name: str, ids: Collection[int], tokenizer: "Tokenizer") -> None:
    wrong = next((token for token in ids if not 0 <= token < tokenizer.n_vocab), None)
    if wrong is not None:
        raise OptionError(f"{name} must hold token ids >= 0 and <= {tokenizer.n_vocab - 1}, got {wrong}")
