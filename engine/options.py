"""What can be asked of a transcription, checked where it enters. The names and defaults are faster-whisper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewhisper.engine.audio_context import parse as parse_audio_context
from tilewhisper.engine.errors import OptionError

if TYPE_CHECKING:
    from tilewhisper.models.facts import GenerationFacts
    from tilewhisper.models.tokenizer import Tokenizer

TASKS = ("transcribe", "translate")
SECONDS_PER_TIMESTAMP = 0.02


@dataclass(frozen=True)
class TranscriptionOptions:
    """Raises OptionError for a value out of its range."""

    language: str | None = None
    """Code or English name; None detects it from the first window."""
    task: str = "transcribe"
    without_timestamps: bool = False
    max_new_tokens: int | None = None
    """The most tokens a window may give; None is half the text context, as in openai-whisper."""
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] | None = (-1,)
    """-1 stands for the model's own list of symbols that are not speech."""
    max_initial_timestamp: float = 1.0
    """Seconds; a window's first segment starts no later."""
    no_speech_threshold: float | None = 0.6
    log_prob_threshold: float | None = -1.0
    """A window is dropped as silence when no-speech is likelier than the one and the text less sure than the other."""
    compression_ratio_threshold: float | None = 2.4
    """Text that zlib makes shorter than that repeats itself."""
    audio_context: str = "auto"
    """How much of the silence after a short window's audio is encoded: full, sparse:S, silent, auto (audio_context.py).
    A window that then decodes badly, by the two thresholds, is done again in full."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise OptionError(f"unknown task {self.task!r}; the tasks are {' and '.join(TASKS)}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise OptionError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        parse_audio_context(self.audio_context)
        if self.max_initial_timestamp < 0:
            raise OptionError(f"max_initial_timestamp must not be negative, not {self.max_initial_timestamp}")

    def suppressed(self, tokenizer: Tokenizer, facts: GenerationFacts) -> tuple[int, ...]:
        """The ids that never come, -1 spelled out. Raises OptionError for an id outside the vocabulary."""
        wanted = self.suppress_tokens or ()
        if wrong := [token for token in wanted if not -1 <= token < tokenizer.n_vocab]:
            raise OptionError(f"suppress_tokens: {wrong[0]} is no token id; they run from 0 to {tokenizer.n_vocab - 1}")
        own = facts.suppress_tokens if -1 in wanted else ()
        return tuple(sorted({*own, *(token for token in wanted if token >= 0)}))

    def suppressed_first(self, facts: GenerationFacts) -> tuple[int, ...]:
        return facts.begin_suppress_tokens if self.suppress_blank else ()

    @property
    def max_initial_timestamp_index(self) -> int:
        return round(self.max_initial_timestamp / SECONDS_PER_TIMESTAMP)
