"""float32 products by torch's own BLAS: the default, and the baseline of every other backend."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.kernels.decoder import DecoderBackend


class _Weights(NamedTuple):
    weight: Tensor  # (n, k) or (n, channels, taps) float32, shared with the model
    bias: Tensor | None


class _CrossKV(NamedTuple):
    keys: Tensor  # (batch, heads, n, head_dim), contiguous
    values: Tensor
    bias: Tensor | None  # (n,)


class TorchBackend(DecoderBackend):
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
        return F.gelu(y).mT.contiguous()

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)

    def decode_layout(self, weight: Tensor) -> Tensor:
        """Column-major: faster for one row, because torch then uses all cores. Base's output projection took 4.5 ms
        against 10.5 ms row-major, the weights of its 6 layers 6.3 against 8.1 (torch 2.13, 2 cores).
        """
        return weight.T.contiguous().T

    def pack_cross_kv(self, k: Tensor, v: Tensor, bias: Tensor | None = None) -> _CrossKV:
        return _CrossKV(k.contiguous(), v.contiguous(), bias)  # every step reads all of them, head by head

    def cross_attention(self, q: Tensor, cross_kv: _CrossKV, scale: float) -> Tensor:
        return _attend(q, cross_kv.keys, cross_kv.values, scale, cross_kv.bias)

    def self_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        heads, head_dim, new = keys.shape[1], keys.shape[3], qkv.shape[1]
        q, k, v = qkv.unflatten(-1, (3, heads, head_dim)).permute(2, 0, 3, 1, 4)
        for row, start in enumerate(lengths):
            keys[row, :, start : start + new] = k[row]
            values[row, :, start : start + new] = v[row]
        end = max(lengths) + new
        return _attend(q, keys[:, :, :end], values[:, :, :end], scale, _causal(lengths, new, end))


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    logits = (q * scale) @ k.mT
    if mask is not None:
        logits += mask
    return (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def _causal(lengths: Sequence[int], new: int, end: int) -> Tensor | None:
    """The causal mask of new tokens in rows of `lengths` cached tokens: 0 or -inf, (batch, 1, new, end). None if
    every token sees every position.
    """
    if min(lengths) + 1 == end:
        return None
    last = torch.tensor(lengths)[:, None] + torch.arange(new)
    hidden = torch.arange(end) > last[:, None, :, None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
