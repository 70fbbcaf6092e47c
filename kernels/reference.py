"""The oracle: products in float64, rounded to float32 once at the end. Simple and slow on purpose."""

from typing import NamedTuple

from torch import Tensor

from tilewhisper.kernels.base import Backend


class _Weights(NamedTuple):
    weight: Tensor  # (k, n) float64
    bias: Tensor | None


class ReferenceBackend(Backend):
    name = "reference"
    summary = "float64 inputs, products and sums; the oracle, slow"
    for_speed = False

    def prepare(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        return _Weights(weight.double().T.contiguous(), None if bias is None else bias.double())

    def linear(self, x: Tensor, prepared: _Weights) -> Tensor:
        y = x.double() @ prepared.weight
        return (y if prepared.bias is None else y + prepared.bias).float()

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double()).float()
