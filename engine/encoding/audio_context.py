"""How much of the silence after a short window's audio the encoder works through.

Whisper pads every window to 30 s and was trained on that: encode fewer positions and it breaks. But the silent tail can
be had cheaply, without any training:

    full        all 1500 positions, as trained
    sparse:S    the positions with audio and a margin, the last of the window, and every S-th between. In each softmax
                one of those stands for all it was taken from: log(all / kept) is added to its score.
    silent      the positions with audio and a margin only. They attend to themselves and to the keys and values that
                the rest has in a window of nothing but silence, encoded once; the decoder sees its states likewise.
    auto        `sparse:16`, where every product runs on the host; `full` on devices, whose designs are made for 1500

A window without a silent tail is encoded in full under all of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewhisper.engine.errors import OptionError
from tilewhisper.models.constants import FRAMES_PER_POSITION, POSITIONS

MARGIN = 32
"""Positions (20 ms each) after the audio that are kept whole."""
EDGE = 16
"""Positions at the window's end that are kept whole. Without them the states of the audio are off twice as far."""
AUTO_STEP = 16
"""Word errors on 60 clips in % (base, tiny.en; all 1500 positions: 13.59, 16.73): 13.69, 16.54 by `cpu`; 13.78, 16.54
by `int8`. Character errors of base in 8 languages (11.87): 12.63, 11.36. With steps of 8, margins of 8 to 64 and edges
of 8 to 32 word errors were 13.69 to 13.97 and 15.97 to 16.83, in no order; the encoder took up to a fifth longer."""


@dataclass(frozen=True)
class AudioContext:
    """A choice of the above; `step` is S of `sparse:S`."""

    mode: str
    step: int = 1

    def __str__(self) -> str:
        return f"{self.mode}:{self.step}" if self.mode == "sparse" else self.mode


FULL = AudioContext("full")


def parse(text: str) -> AudioContext:
    """`full`, `sparse:S`, `silent` or `auto`. Raises OptionError."""
    mode, _, step = text.partition(":")
    if mode == "sparse" and step.isascii() and step.isdigit() and 1 <= int(step) <= POSITIONS:
        return AudioContext(mode, int(step))
    if mode in ("full", "silent", "auto") and not step:
        return AudioContext(mode)
    raise OptionError(f"unknown audio context {text!r}; there are full, sparse:S (e.g. sparse:4), silent and auto")


@dataclass(frozen=True)
class Encoded:
    """One window's encoder states, as the decoder attends to them."""

    states: Tensor
    """(1, positions, d_model)"""
    bias: Tensor | None = None
    """(positions,), added to the scores of attention where positions stand for more than themselves"""
    cheap: bool = False
    """Whether some of its silence was left out."""


@dataclass(frozen=True)
class SparseTail:
    """Which positions are kept."""

    kept: Tensor
    """(n,) numbers of positions, ascending"""
    bias: Tensor
    """(n,)"""

    @classmethod
    def after(cls, whole: int, step: int) -> "SparseTail":
        """All positions before `whole` < POSITIONS - EDGE, and every `step`-th from there to the edge."""
        edge = POSITIONS - EDGE
        middle = torch.arange(whole, edge, step)
        weight = math.log((edge - whole) / len(middle))
        kept = torch.cat([torch.arange(whole), middle, torch.arange(edge, POSITIONS)])
        bias = torch.zeros(len(kept))
        bias[whole : whole + len(middle)] = weight
        return cls(kept, bias)


def whole_positions(content_frames: int) -> int:
    """Positions that are encoded as they are: those with audio and the margin."""
    return min(POSITIONS, -(-content_frames // FRAMES_PER_POSITION) + MARGIN)
