"""Results of a transcription, with faster-whisper's fields, so that its callers need not change.

They may be changed: live captions add an offset to the times, for example.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.models.audio.facts import AudioFacts
    from tilewhisper.models.audio.vad_options import VadOptions


class _WithAsdict:
    """faster-whisper's deprecated method of segments and words."""

    def _asdict(self) -> dict[str, Any]:
        warnings.warn("_asdict() is deprecated; use dataclasses.asdict", DeprecationWarning, stacklevel=2)
        return asdict(self)  # type: ignore[call-overload,no-any-return]


@dataclass
class Word(_WithAsdict):
    """A word and its times, in seconds of the file."""

    start: float
    end: float
    word: str
    probability: float


@dataclass
class Segment(_WithAsdict):
    """The text between two timestamps, in seconds of the file."""

    id: int
    seek: int
    """First frame (of 10 ms) of the window it was decoded in."""
    start: float
    end: float
    text: str
    tokens: list[int]
    """As decoded, timestamps included."""
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[Word] | None
    temperature: float | None


@dataclass
class TranscriptionInfo:
    """The language, length and options of a transcription, known before its first segment."""

    language: str
    language_probability: float
    """1 if the language was given, or the model knows only one."""
    duration: float
    """Seconds."""
    duration_after_vad: float
    """Seconds."""
    all_language_probs: list[tuple[str, float]] | None
    """(code, probability), most probable first; None if no language was detected."""
    transcription_options: TranscriptionOptions
    vad_options: VadOptions | None = None
    audio: AudioFacts | None = None
    """How the file was read: its track, and what is missing of it."""
