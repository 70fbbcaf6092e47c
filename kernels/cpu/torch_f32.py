"""float32 products by torch's own BLAS: the default, and the baseline of every other backend."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.kernels.decoder import DecoderBackend, PagedKV


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
        attended = _weighted_values(q, cross_kv.keys, cross_kv.values, scale, cross_kv.bias)
        return attended.transpose(1, 2).flatten(2)

    def self_attention(self, qkv: Tensor, caches: PagedKV, layer: int, scale: float) -> Tensor:
        new, end = qkv.shape[1], max(caches.lengths) + qkv.shape[1]
        split = qkv.unflatten(-1, (3, caches.heads, caches.head_dim)).permute(2, 3, 0, 1, 4)
        for row, length in enumerate(caches.lengths):
            _append(split[1:, :, row], caches, layer, caches.pages[row], length)
        # Heads before rows, as they lie in pages: another order would be copied once more.
        keys, values = _gather(caches, layer)[..., :end, :]
        attended = _weighted_values(split[0], keys, values, scale, _causal(caches.lengths, new, end))
        return attended.permute(1, 2, 0, 3).flatten(2)


def _append(kv: Tensor, caches: PagedKV, layer: int, pages: Sequence[int], length: int) -> None:
    """Write a row's keys and values (2, heads, new, head_dim) into its pages, after its first `length` tokens."""
    (_, _, _, per_slab, size, _), new = caches.slabs[0].shape, kv.shape[2]
    first = 0
    while first < new:
        place = (length + first) % size
        last = min(new, first + size - place)
        slab, page = divmod(pages[(length + first) // size], per_slab)
        caches.slabs[slab][layer, :, :, page, place : place + last - first] = kv[:, :, first:last]
        first = last


def _gather(caches: PagedKV, layer: int) -> Tensor:
    """The keys and values of all rows, copied: (2, heads, rows, tokens, head_dim). A shorter row has any numbers at its
    end."""
    per_slab, most = caches.slabs[0].shape[3], max(map(len, caches.pages))
    padded = [[*row, *[row[0]] * (most - len(row))] for row in caches.pages]
    places = {page: place for place, page in enumerate(dict.fromkeys(chain(*padded)))}
    once = torch.stack([caches.slabs[page // per_slab][layer, :, :, page % per_slab] for page in places], dim=2)
    kv: Tensor = once.index_select(2, torch.tensor([places[page] for row in padded for page in row]))
    return kv.view(*kv.shape[:2], len(padded), -1, kv.shape[-1])


def _weighted_values(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    logits = (q * scale) @ k.mT
    if mask is not None:
        logits += mask
    weighted: Tensor = logits.softmax(dim=-1) @ v
    return weighted


def _causal(lengths: Sequence[int], new: int, end: int) -> Tensor | None:
    """The causal mask of new tokens in rows of `lengths` cached tokens: 0 or -inf, (batch, new, end). None if every
    token sees every position.
    """
    if min(lengths) + 1 == end:
        return None
    last = torch.tensor(lengths)[:, None] + torch.arange(new)
    hidden = torch.arange(end) > last[..., None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
