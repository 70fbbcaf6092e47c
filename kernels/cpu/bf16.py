"""The arithmetic of an NPU tile, on the host: inputs rounded to bf16 (nearest, ties to even), float32 sums.

A product of two 8-bit mantissas fits float32's 24 bits, so a float32 matmul of rounded inputs has exact products; only
the order of its sums differs from a device's. Per element, with u = 2^-8 for rounding an input and 2^-24 for a sum:

    |error| <= ((1 + u)^2 - 1 + K 2^-24) * sum_k |a_k| |b_k|

Not a fast path. The products run in float32, because on AVX2 torch's bf16 matmul reached 20 GFLOP/s and float32 180.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.kernels.base import Backend


def round_to_bf16(x: Tensor) -> Tensor:
    """The nearest bf16 values, as float32."""
    return x.to(torch.bfloat16).to(torch.float32)


class _Weights(NamedTuple):
    weight: Tensor  # (n, k) float32 holding bf16 values
    bias: Tensor | None  # float32: added to the float32 sum, as a device's host side does


class Bf16Backend(Backend):
    name = "bf16"
    summary = "inputs rounded to bf16, exact products, float32 sums (an NPU tile's arithmetic)"
    for_speed = False

    def prepare(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        return _Weights(round_to_bf16(weight), bias)

    def linear(self, x: Tensor, prepared: _Weights) -> Tensor:
        return F.linear(round_to_bf16(x), prepared.weight, prepared.bias)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return round_to_bf16(a) @ round_to_bf16(b)
