"""float32 products by torch's own BLAS: the default, and what every other backend is measured against."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from tilewhisper.kernels.base import AttentionBackend


class _Weights(NamedTuple):
    weight: Tensor  # (n, k) or (n, channels, taps) float32, shared with the model
    bias: Tensor | None


class TorchBackend(AttentionBackend):
    name = "torch"
    summary = "float32 by torch"

    def prepare(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        return _Weights(weight, bias)

    def linear(self, x: Tensor, prepared: _Weights) -> Tensor:
        return F.linear(x, prepared.weight, prepared.bias)

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        return _Weights(weight, bias)

    def conv_gelu(self, x: Tensor, prepared: _Weights, taps: int, stride: int) -> Tensor:
        y = F.conv1d(x.mT, prepared.weight, prepared.bias, stride=stride, padding=taps // 2)
        return F.gelu(y).mT

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)
