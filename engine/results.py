"""What a transcription gives back. The shapes are faster-whisper's, so that its callers need not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.models.audio.vad_options import VadOptions


@dataclass(frozen=True)
class Word:
    """One word and when it was said, in seconds of the file."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of text between two timestamps, in seconds of the file."""

    id: int
    seek: int
    """First frame (of 10 ms) of the window it was decoded in."""
    start: float
    end: float
    text: str
    tokens: list[int]
    """Timestamps included, as decoded."""
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[Word] | None
    temperature: float | None


@dataclass(frozen=True)
class TranscriptionInfo:
    language: str
    language_probability: float
    """1 where the language was given, or the model knows only one."""
    duration: float
    """Seconds."""
    duration_after_vad: float
    all_language_probs: list[tuple[str, float]] | None
    """TopK first; None where nothing was detected."""
    transcription_options: TranscriptionOptions
    vad_options: VadOptions | None = None
