"""What is speech and what is silence, as data. Imports nothing heavy: the command's flags take their defaults here."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VadOptions:
    """faster-whisper's names and defaults."""

    threshold: float = 0.5
    """A frame at or above it is speech."""
    neg_threshold: float | None = None
    """A frame below it is silence; between the two all stays as it was. None: 0.15 below `threshold`, at least 0.01."""
    min_speech_duration_ms: int = 0
    """Shorter spans are dropped."""
    max_speech_duration_s: float = math.inf
    """Longer spans are cut, in the last silence above 98 ms if there is one."""
    min_silence_duration_ms: int = 2000
    """Silence that ends a span."""
    speech_pad_ms: int = 400
    """Added on each side of a span; neighbours share what lies between them."""

    @property
    def silence_below(self) -> float:
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold
