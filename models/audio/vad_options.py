"""Options of the voice activity detector (VAD): names and defaults are faster-whisper's."""

import math
from dataclasses import dataclass

from tilewhisper.models.option_fields import Range, option

VAD_GROUP = "voice activity detection"
"""Heading of its flags in `--help`."""


@dataclass(frozen=True)
class VadOptions:
    """How speech probabilities become spans of speech. `TranscriptionOptions.vad_parameters` checks the values."""

    threshold: float = option(
        0.5, "a frame with at least this probability is speech", Range(0, 1), group=VAD_GROUP, alias="vad_onset"
    )
    neg_threshold: float | None = option(
        None,
        "a frame below this probability is silence; in between, the frame before decides; by default threshold - 0.15, "
        "at least 0.01",
        Range(0, 1),
        group=VAD_GROUP,
    )
    min_speech_duration_ms: int = option(0, "drop shorter spans of speech", Range(0), group=VAD_GROUP)
    max_speech_duration_s: float = option(
        math.inf,
        "cut longer spans of speech, at their last silence above 98 ms if there is one",
        Range(0, math.inf, above=True),
        group=VAD_GROUP,
    )
    min_silence_duration_ms: int = option(2000, "silence of this length ends a span", Range(0), group=VAD_GROUP)
    speech_pad_ms: int = option(
        400, "audio added on each side of a span; neighbours share the gap between them", Range(0), group=VAD_GROUP
    )

    @property
    def silence_below(self) -> float:
        """The probability below which a frame is silence."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold
