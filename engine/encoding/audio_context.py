"""The share of the silence after a short window's audio that the encoder processes. Needs no torch.

Whisper pads every window to 30 s and was trained on that: encode fewer positions and it breaks. But the silent tail can
be approximated at little cost, without any training:

    full        all 1500 positions, as trained
    sparse:S    the positions with audio and a margin, the last of the window, and every S-th between. In each softmax
                one of these S-th positions represents all skipped ones: log(all / retained) is added to its logit.
    silent      the positions with audio and a margin only. They attend to themselves and to the rest's keys and values
                from a window of pure silence, encoded once; the decoder sees that window's states for the rest.
    auto        `sparse:32` if every product runs on the host; `full` on devices, whose designs are made for 1500

A window without a silent tail is always encoded in full.
"""

from dataclasses import dataclass

from tilewhisper.engine.errors import OptionError
from tilewhisper.models.constants import FRAMES_PER_POSITION, POSITIONS

MODES = ("full", "sparse:S", "silent", "auto")
"""S is a step of 1 to 1500 positions."""
MARGIN = 32
"""Positions (20 ms each) after the audio that are encoded in full."""
EDGE = 16
"""Positions at the window's end that are encoded in full. Without them the states of the audio are off twice as far."""
AUTO_STEP = 32
"""Word errors on 60 clips in % (base, tiny.en; all 1500 positions: 13.59, 16.73): 13.59, 16.83 by `cpu`; 13.88, 16.35
by `int8`; with steps of 16 13.69, 16.54; 13.88, 16.54. Character errors of base in 8 languages (11.87): 12.12, 11.36;
with 16 12.63, 11.87. With steps of 8 to 64, margins of 8 to 64 and edges of 8 to 32 word errors were 13.40 to 13.97 and
15.97 to 17.02, in no order; with steps of 128 tiny.en had 17.68."""


@dataclass(frozen=True)
class AudioContext:
    """A mode; `step` is S of `sparse:S`."""

    mode: str
    step: int = 1

    def __str__(self) -> str:
        return f"{self.mode}:{self.step}" if self.mode == "sparse" else self.mode


FULL = AudioContext("full")


def parse(text: str) -> AudioContext:
    """Parse one of MODES. Raises OptionError."""
    mode, _, step = text.partition(":")
    if mode == "sparse" and step.isascii() and step.isdigit() and 1 <= int(step) <= POSITIONS:
        return AudioContext(mode, int(step))
    if text in MODES and mode != "sparse":
        return AudioContext(mode)
    raise OptionError(
        f"audio_context must be full, sparse:S (S from 1 to {POSITIONS}, e.g. sparse:4), silent or auto, got {text!r}"
    )


def whole_positions(content_frames: int) -> int:
    """Positions that are encoded in full: those with audio and the margin."""
    return min(POSITIONS, -(-content_frames // FRAMES_PER_POSITION) + MARGIN)
