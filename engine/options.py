"""What can be asked of a transcription, checked where it enters.

Names and defaults are faster-whisper's; what only openai-whisper or only this project knows stands at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewhisper.engine.encoding.audio_context import parse as parse_audio_context
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.constants import TIMESTAMPS_PER_SECOND, WINDOW_SECONDS

if TYPE_CHECKING:
    from tilewhisper.models.audio.vad_options import VadOptions
    from tilewhisper.models.checkpoint.generation_config import GenerationConfig
    from tilewhisper.models.tokenizer.tokenizer import Tokenizer

TASKS = ("transcribe", "translate")
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class TranscriptionOptions:
    """Raises OptionError for a value out of its range."""

    language: str | None = None
    """Code or English name; None detects it."""
    task: str = "transcribe"
    log_progress: bool = False
    """A progress bar on standard error."""
    beam_size: int = 5
    """Hypotheses followed at temperature 0; 1 is greedy."""
    best_of: int = 5
    """Samples drawn above temperature 0, of which the best is taken."""
    patience: float = 1.0
    """beam_size * patience finished hypotheses end a beam search."""
    length_penalty: float = 1.0
    """Hypotheses are compared by their log-probability / length ** length_penalty."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that came before become less likely."""
    no_repeat_ngram_size: int = 0
    """Runs of so many tokens come once; 0 leaves them be."""
    temperature: float | Sequence[float] = TEMPERATURES
    """Several are tried in turn, until the text passes the two thresholds."""
    compression_ratio_threshold: float | None = 2.4
    """Text that zlib makes shorter than that repeats itself."""
    log_prob_threshold: float | None = -1.0
    """Text whose mean log-probability is lower is unsure."""
    no_speech_threshold: float | None = 0.6
    """A window is dropped as silence when no-speech is likelier and the text unsure."""
    condition_on_previous_text: bool = True
    """Whether a window sees the text before it."""
    prompt_reset_on_temperature: float = 0.5
    """Text that took a higher temperature is not shown to the next window."""
    initial_prompt: str | Iterable[int] | None = None
    """Text, or tokens, that the first window sees as if it came before."""
    prefix: str | None = None
    """Text that the first window begins with."""
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] | None = (-1,)
    """-1 stands for the model's own list of symbols that are not speech."""
    without_timestamps: bool = False
    max_initial_timestamp: float = 1.0
    """Seconds; a window's first segment starts no later."""
    word_timestamps: bool = False
    prepend_punctuations: str = PUNCTUATION.prepended
    """Marks that go with the word after them."""
    append_punctuations: str = PUNCTUATION.appended
    """Marks that go with the word before them."""
    multilingual: bool = False
    """Whether every window's language is detected anew."""
    vad_filter: bool = False
    """Whether silence is cut out before anything is decoded."""
    vad_parameters: Mapping[str, Any] | VadOptions | None = None
    max_new_tokens: int | None = None
    """The most tokens a window may give; None is half the text context, as in openai-whisper."""
    chunk_length: int | None = None
    """Seconds of audio in a window, at most 30, which is what None stands for."""
    clip_timestamps: str | Sequence[float] = "0"
    """Seconds: start,end,start,end,… of what is transcribed; the last end may be left out."""
    hallucination_silence_threshold: float | None = None
    """Seconds; with word_timestamps, silence longer than that around unlikely text is skipped."""
    hotwords: str | None = None
    """Words that every window sees as if they came before, where no prefix is given."""
    language_detection_threshold: float | None = 0.5
    """A language at least so probable is taken without hearing more."""
    language_detection_segments: int = 1
    """The most windows that are heard to detect the language."""
    carry_initial_prompt: bool = False
    """Whether every window sees the initial prompt, not only the first."""
    batch_size: int | None = None
    """Windows of one file that are decoded together: the file is cut at silences, which needs the VAD; no piece sees
    the text before it. None goes through it in order."""
    seed: int = 0
    """Of sampling: the same seed gives the same text."""
    audio_context: str = "auto"
    """How much of the silence after a short window's audio is encoded: full, sparse:S, silent, auto (audio_context.py).
    A window that then decodes badly, by the two thresholds, is done again in full."""

    def __post_init__(self) -> None:
        if not isinstance(self.initial_prompt, str | None):
            object.__setattr__(self, "initial_prompt", tuple(self.initial_prompt))  # it may be read only once
        if self.task not in TASKS:
            raise OptionError(f"unknown task {self.task!r}; the tasks are {' and '.join(TASKS)}")
        for name in ("beam_size", "best_of", "max_new_tokens", "batch_size", "language_detection_segments"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise OptionError(f"{name} must be at least 1, not {count}")
        for name in ("patience", "repetition_penalty"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise OptionError(f"{name} must be above 0, not {value}")
        for name in ("no_repeat_ngram_size", "max_initial_timestamp", "hallucination_silence_threshold"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise OptionError(f"{name} must not be negative, not {value}")
        if not self.temperatures or not all(0 <= t < math.inf for t in self.temperatures):
            raise OptionError(f"temperature must be one number from 0 up, or several, not {self.temperature}")
        if self.chunk_length is not None and not 1 <= self.chunk_length <= WINDOW_SECONDS:
            raise OptionError(f"chunk_length must be 1 to {WINDOW_SECONDS} seconds, not {self.chunk_length}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise OptionError(f"seed must be 0 to {LARGEST_SEED}, not {self.seed}")
        parse_audio_context(self.audio_context)
        _ = self.clips, self.vad_options

    @property
    def temperatures(self) -> tuple[float, ...]:
        given = self.temperature
        return tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)

    @property
    def most_hypotheses(self) -> int:
        """Texts that are followed at once of a window, at most."""
        return max(self.beam_size if temperature == 0 else self.best_of for temperature in self.temperatures)

    @property
    def longest_chunk(self) -> int:
        """Seconds of audio in a window."""
        return self.chunk_length or WINDOW_SECONDS

    @property
    def clips(self) -> tuple[tuple[float, float], ...]:
        """Seconds from and to, of each stretch that is transcribed; the last may end at infinity."""
        given = self.clip_timestamps
        try:
            times = [float(t) for t in (given.split(",") if isinstance(given, str) else given) if t != ""]
        except ValueError:
            raise OptionError(f"clip_timestamps must be seconds: start,end,start,end,…, not {given!r}") from None
        times = times or [0.0]
        if times != sorted(times) or times[0] < 0 or any(math.isnan(t) for t in times):
            raise OptionError(f"clip_timestamps must ascend from 0 or later, not {given!r}")
        if len(times) % 2:
            times.append(math.inf)
        return tuple(zip(times[::2], times[1::2], strict=True))

    @property
    def vad_options(self) -> VadOptions | None:
        """What vad_parameters say, where the filter is on or the file is cut at silences; there, faster-whisper's
        defaults are others."""
        if not self.vad_filter and self.batch_size is None:
            return None
        from tilewhisper.models.audio.vad_options import VadOptions

        if isinstance(given := self.vad_parameters, VadOptions):
            return given
        cutting = {"max_speech_duration_s": self.longest_chunk, "min_silence_duration_ms": 160}
        try:
            return VadOptions(**{**({} if self.batch_size is None else cutting), **dict(given or {})})
        except TypeError as e:
            known = ", ".join(VadOptions.__dataclass_fields__)
            raise OptionError(f"vad_parameters: {e}; there are {known}") from None

    def suppressed(self, tokenizer: Tokenizer, generation_config: GenerationConfig) -> tuple[int, ...]:
        """The ids that never come, -1 spelled out. Raises OptionError for an id outside the vocabulary."""
        wanted = self.suppress_tokens or ()
        if wrong := [token for token in wanted if not -1 <= token < tokenizer.n_vocab]:
            raise OptionError(f"suppress_tokens: {wrong[0]} is no token id; they run from 0 to {tokenizer.n_vocab - 1}")
        own = generation_config.suppress_tokens if -1 in wanted else ()
        return tuple(sorted({*own, *(token for token in wanted if token >= 0)}))

    def suppressed_first(self, generation_config: GenerationConfig) -> tuple[int, ...]:
        return generation_config.begin_suppress_tokens if self.suppress_blank else ()

    @property
    def max_initial_timestamp_index(self) -> int:
        return round(self.max_initial_timestamp * TIMESTAMPS_PER_SECOND)
