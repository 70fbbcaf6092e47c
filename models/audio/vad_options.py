"""Options of the voice activity detector. Imports nothing heavy: the command's flags take their defaults from here."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class VadOptions:
    """When a frame counts as speech, and how speech spans are cut; names and defaults are faster-whisper's."""

    threshold: float = 0.5
    """Frames with at least this probability are speech."""
    neg_threshold: float | None = None
    """Frames below it are silence; in between, the state does not change. None: `threshold` - 0.15, at least 0.01."""
    min_speech_duration_ms: int = 0
    """Shorter speech spans are dropped."""
    max_speech_duration_s: float = math.inf
    """Longer speech spans are cut, at their last silence above 98 ms if they have any."""
    min_silence_duration_ms: int = 2000
    """Silence of this length ends a speech span."""
    speech_pad_ms: int = 400
    """Padding on each side of a speech span; neighbours share a shorter gap in equal parts."""

    @property
    def silence_below(self) -> float:
        """Probability below which a frame is silence."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold
