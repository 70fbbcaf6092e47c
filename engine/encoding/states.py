"""Encoder states of a window, and the positions of a sparse tail."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewhisper.engine.encoding.audio_context import EDGE
from tilewhisper.models.constants import POSITIONS


@dataclass(frozen=True)
class Encoded:
    """One window's encoder states, as the decoder attends to them."""

    states: Tensor
    """(1, positions, d_model)"""
    bias: Tensor | None = None
    """(positions,), added to attention's logits if some positions represent several."""
    approximate: bool = False
    """Whether the silent tail was approximated."""


@dataclass(frozen=True)
class SparseTail:
    """The positions that are encoded, and their weights in attention."""

    positions: Tensor
    """(n,) numbers of positions, ascending"""
    bias: Tensor
    """(n,)"""

    @classmethod
    def after(cls, whole: int, step: int) -> "SparseTail":
        """All positions before `whole` < POSITIONS - EDGE, every `step`-th from there to the edge, and the edge."""
        edge = POSITIONS - EDGE
        middle = torch.arange(whole, edge, step)
        weight = math.log((edge - whole) / len(middle))
        positions = torch.cat([torch.arange(whole), middle, torch.arange(edge, POSITIONS)])
        bias = torch.zeros(len(positions))
        bias[whole : whole + len(middle)] = weight
        return cls(positions, bias)
