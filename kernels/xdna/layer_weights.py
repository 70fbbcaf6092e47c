"""An encoder layer's weights as the device's products take them: transposed, with the bias below, rounded to bf16.

The weight and bias of a layer norm are folded into the product that follows it, and the scale of q k^T into q's rows:

    W (g * n + b) + c = (W g) n + (W b + c)         n: the row, normalized

in float64, so that each number is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tilewhisper.kernels.base import EncoderLayer, LayerShape, Norm
from tilewhisper.kernels.xdna.buffers import Bits, bits
from tilewhisper.kernels.xdna.devices import CORE_TILE
from tilewhisper.kernels.xdna.layer_plan import ROWS
from tilewhisper.kernels.xdna.row_plan import EPSILON
from tilewhisper.kernels.xdna.tile_plan import BIAS_PARTS, GELU, IDENTITY


@dataclass(frozen=True, eq=False)
class HostLinear:
    """A weight (n, k) and bias (n,), as they were loaded."""

    weight: Tensor
    bias: Tensor | None


class Affine(NamedTuple):
    """A product's weight (n, k) and bias (n,) in float64."""

    weight: Tensor
    bias: Tensor


def layer_shape(layer: EncoderLayer) -> LayerShape:
    """The size of a layer whose weights are `HostLinear`s, with all positions that the device has."""
    hidden, width = layer.fc1.weight.shape
    return LayerShape(ROWS, width, layer.heads, hidden)


def why_not_on_device(layer: EncoderLayer) -> str | None:
    """Why the weights of a layer do not fit the device's programs, or None."""
    strange = {norm.eps for norm in (layer.attention_norm, layer.final_norm)} - {EPSILON}
    return f"the norms have an eps of {strange.pop():g}, and the device's {EPSILON:g}" if strange else None


def layer_matrices(layer: EncoderLayer) -> Mapping[str, Bits]:
    """The matrices (k + rows of the bias, n) of a layer's four products, by the names of their buffers."""
    qkv = _after_norm(_affine(layer.qkv), layer.attention_norm)
    width = layer.qkv.weight.shape[1]
    scale = torch.ones(3 * width, dtype=torch.float64)
    scale[:width] = layer.scale
    qkv = Affine(qkv.weight * scale[:, None], qkv.bias * scale)
    return {
        "w_qkv": product_matrix(qkv),
        "w_out": product_matrix(_affine(layer.out)),
        "w_fc1": product_matrix(_after_norm(_affine(layer.fc1), layer.final_norm), GELU),
        "w_fc2": product_matrix(_affine(layer.fc2)),
    }


def _affine(linear: HostLinear) -> Affine:
    bias = linear.bias.double() if linear.bias is not None else linear.weight.new_zeros(len(linear.weight)).double()
    return Affine(linear.weight.double(), bias)


def _after_norm(product: Affine, norm: Norm) -> Affine:
    """The product of the normalized row, without the norm's own weight and bias."""
    return Affine(product.weight * norm.weight.double(), product.bias + product.weight @ norm.bias.double())


def product_matrix(product: Affine, activation: float = IDENTITY) -> Bits:
    """A product's matrix (k + rows of the bias, n)."""
    n, k = product.weight.shape
    matrix = np.zeros((k + CORE_TILE.k, n), np.uint16)
    matrix[:k] = bits(product.weight.T.float())
    rest = product.bias.float()
    for row in range(k, k + BIAS_PARTS):
        part = rest.bfloat16()
        matrix[row] = bits(part.float())
        rest = rest - part.float()  # exact: the part is the leading bits
    matrix[k + BIAS_PARTS] = bits(torch.full((n,), activation))
    return matrix
