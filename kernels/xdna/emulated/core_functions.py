"""What the cores compute besides products, on whole matrices in float32.

The bias and the activation come below B: rows 0 to 2 after its K rows are three bf16 numbers whose float32 sum is the
bias, and the first element of row 3 of a tile names the activation, for the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values
from tilewhisper.kernels.xdna.row_plan import EPSILON
from tilewhisper.kernels.xdna.tile_plan import BIAS_PARTS, GELU

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint16]


def rounded(x: Floats) -> Bits:
    """To the nearest bf16, ties to even."""
    return bf16_bits(x, Rounding.NEAREST_EVEN)


def with_bias(sums: Floats, header: Bits, n: int) -> Floats:
    """Activation of sums (M, N) plus the bias of header (rows, N), for tiles of `n` columns."""
    rows = bf16_values(header)
    biased: Floats = sums + rows[:BIAS_PARTS].sum(axis=0, dtype=np.float32)
    names = np.repeat(rows[BIAS_PARTS, ::n], n)
    return np.where(names == GELU, gelu(biased), biased) if (names == GELU).any() else biased


def gelu(x: Floats) -> Floats:
    """The exact (erf) GELU."""
    y: Floats = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    return y


def add_norm(x: Floats, y: Bits) -> tuple[Floats, Bits]:
    """x + y (rows, width), and its normalized rows."""
    total: Floats = x + bf16_values(y)
    centred = total - total.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    return total, rounded(centred / np.sqrt(variance + np.float32(EPSILON)))


def softmax(scores: Floats, bias: Floats) -> tuple[Bits]:
    """Softmax of each row of scores (rows, width) plus the bias of its row, or of all rows."""
    logits = scores + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (rounded(powers / powers.sum(axis=1, keepdims=True, dtype=np.float32)),)


ROW_FUNCTIONS: Mapping[str, Callable[..., tuple[npt.NDArray[np.generic], ...]]] = {
    "add_norm": add_norm,
    "softmax": softmax,
}
"""A function of rows -> from its inputs to its results, in the order of its operands."""
