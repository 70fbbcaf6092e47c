"""Weights in the layout of the native kernels (native/panels.h), packed once from float32."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

native = torch.ops.tilewhisper_native


class PackedWeight(NamedTuple):
    """A weight (n, k) in the kernels' layout; see native/panels.h."""

    panels: Tensor  # int16 or int8; uint8 for weights in nibbles
    scales: Tensor  # float32, one per row, zero-padded to whole panels; of nibbles float16, one per group
    sums: Tensor | None  # float32, padded likewise: sums of rows; only for weights in quads
    bias: Tensor | None  # float32, padded likewise
    n: int


def pack(weight: Tensor, bias: Tensor | None, bits: int) -> PackedWeight:
    """Pack a float32 weight (n, k) and bias (n,) in int16 (`bits` = 16) or int8 (8), for rows of 16 bits."""
    panels, scales = native.pack_weight(weight, bits)
    return PackedWeight(panels, scales, None, padded(bias, len(weight)), len(weight))


def pack_quads(weight: Tensor, bias: Tensor | None) -> PackedWeight:
    """Pack a float32 weight (n, k) and bias (n,) in int8, for rows of 8 bits."""
    panels, scales, sums = native.pack_quads(weight)
    return PackedWeight(panels, scales, sums, padded(bias, len(weight)), len(weight))


def padded(t: Tensor | None, n: int) -> Tensor | None:
    """Zeros after the last dimension, up to whole panels of n columns."""
    return None if t is None else F.pad(t, (0, -n % 16))
