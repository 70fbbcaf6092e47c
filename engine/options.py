"""The options of a transcription: each is one field, with its help, range and flag.

Names, defaults and order are faster-whisper's; the keyword-only fields are openai-whisper's or ours. The record checks
itself when it is made. The signature and docstring of `WhisperModel.transcribe` (models/option_signature.py) and the
flags of `tilewhisper transcribe` (commands/flags.py) are derived from the fields (models/option_fields.py).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from tilewhisper.engine import option_values
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.audio.vad_options import VAD_GROUP, VadOptions
from tilewhisper.models.constants import TIMESTAMPS_PER_SECOND, WINDOW_SECONDS
from tilewhisper.models.option_fields import (
    Range,
    normalized,
    option,
    option_fields,
    unknown,
)

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
"""Each hypothesis has a self-attention cache: 64 of 224 tokens take 0.35 GB with base and 4.7 GB with large-v3."""
MAX_BATCH_SIZE = 256
"""Each window has its own cross-attention cache: 256 of them take 9.4 GB with base. 60 windows were no faster than 32
(60 clips of base)."""
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class TranscriptionOptions:
    """Everything a caller can choose about a transcription. Raises OptionError for a value that is not allowed."""

    language: str | None = option(
        None,
        "code, English name or tag such as en-US; detected when not given, or auto",
        check=option_values.language,
        parse=option_values.language,
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
        check=option_values.temperatures,
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
        check=option_values.prompt,
        group=_SPEECH,
    )
    prefix: str | None = option(None, "text that the first window begins with", group=_SPEECH)
    suppress_blank: bool = option(True, "no window begins with a blank")
    suppress_tokens: Sequence[int] | None = option(
        (-1,),
        "token ids that are never chosen; -1 stands for the model's own list",
        check=option_values.suppressed,
        parse=option_values.parsed_token_ids,
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
        None, "VadOptions, or some of its fields by name", check=option_values.vad_parameters, flag=False
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
        check=option_values.clips,
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
        check=option_values.audio_context,
        metavar="HOW",
    )
    audio_track: int | str | None = option(
        None,
        "number, from 1 on, or language code of the audio track to transcribe; by default the file's main one",
        check=option_values.audio_track,
        parse=option_values.parsed_track,
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
        times = list(option_values.clip_times(self.clip_timestamps)) or [0.0]
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
