"""The output projection (LM head) in few bits, to find the tokens whose logits are then computed exactly.

A decode step reads all of it, so its bytes are what it costs. With 4 bits as they are it loses too much: all tokens'
rows have nearly the same large part, whose rounding makes logits of base wrong by 0.83 (standard deviation), so that
half of the steps would compute 500 logits again and some 30,000. This common part, the first RANK principal directions
of the rows, is a product of low rank in float32; 4 bits hold the rest. The logits' error is then 0.24, and a greedy
step computes 4 logits of text and 109 of timestamps again (mean; with beams of 5, 97 and 187 a beam). So many logits
are exact then that tokens are those of float32 logits more often than with 8 bits for weights and activations: with 5
beams on 59 (base) and 60 (tiny.en) of 60 clips (8 bits: 52 and 54), greedily on 59 and 60 (59 and 60).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tilewhisper.kernels.cpu.packed_weight import PackedWeight, native, pack, padded

RANK = 4
"""Base: with 0, 1, 4 and 16, a greedy step computed 252, 15, 11 and 10 logits of text again, in the mean (with a wider
bound of the error than today's)."""
_SAMPLE = 8
"""Principal directions are those of every eighth token: they are the same, in an eighth of the time."""


class LMHead(NamedTuple):
    """A packed output projection, and how its rows were rounded (see native/rescore.cpp)."""

    packed: PackedWeight
    steps: Tensor  # (n,), by which its rows are rounded
    norms: Tensor  # (n,), of its rows; zeros if activations have 16 bits
    largest_steps: Tensor  # of each block of rows
    largest_norms: Tensor
    shared: Tensor | None = None  # (rank, k): the rows' common part is parts, transposed, times shared
    parts: Tensor | None = None  # (rank, n up to whole panels)

    @classmethod
    def create(
        cls,
        packed: PackedWeight,
        steps: Tensor,
        norms: Tensor,
        shared: Tensor | None = None,
        parts: Tensor | None = None,
    ) -> "LMHead":
        steps = steps[: packed.n].clone()
        return cls(packed, steps, norms, native.block_maxima(steps), native.block_maxima(norms), shared, parts)

    @property
    def bits(self) -> int:
        """Of its rows."""
        return 8 if self.shared is None else 4

    @property
    def rounding(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What bounds the errors of its logits."""
        return self.steps, self.norms, self.largest_steps, self.largest_norms, self.bits


def in_8_bits(weight: Tensor) -> LMHead:
    """An output projection (n, k) for rows of 16 bits."""
    packed = pack(weight, None, 8)
    return LMHead.create(packed, packed.scales, torch.zeros(len(weight)))


def in_4_bits(weight: Tensor) -> LMHead:
    """An output projection (n, k) for rows of 8 bits, but for its common part."""
    sample = weight[::_SAMPLE]
    _, directions = torch.linalg.eigh(sample.T @ sample)  # by rising eigenvalue
    shared = directions[:, -RANK:].T.contiguous()
    parts = weight @ shared.T
    panels, scales, errors = native.pack_nibbles(weight, parts, shared)
    # Evenly distributed errors of this size have steps sqrt(12) times as large.
    steps = errors * (12 / weight.shape[1]) ** 0.5
    norms = torch.linalg.vector_norm(weight, dim=1)
    nibbles = PackedWeight(panels, scales, None, None, len(weight))
    return LMHead.create(nibbles, steps, norms, shared, padded(parts.T.contiguous(), len(weight)))
