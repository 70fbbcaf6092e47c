"""ggml's types: float32 and float16, and blocks of 32 values that share a float16 scale.

    q8_0          scale, 32 int8                                  value = scale * code
    q4_0  q5_0    scale, codes                                    value = scale * (code - 8 or 16)
    q4_1  q5_1    scale, smallest value (float16), codes          value = scale * code + smallest

A code of 4 bits is half a byte: byte i has value i in its low half and value i + 16 in its high half. The fifth bits
are 32 bits before them, bit i for value i. Each value is rounded as in ggml's own `quantize_row_*_ref`.
"""

from __future__ import annotations

import torch
from torch import Tensor

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
"""ggml's numbers of the types."""

BLOCK = 32
"""Values of a block."""

_HALF = BLOCK // 2


def encode(values: Tensor, kind: str) -> Tensor:
    """Float32 values (..., columns) as one of `TYPES`; columns must be a multiple of `BLOCK` for quantised ones.

    Returns a float tensor of the same shape, or the bytes of the blocks, (blocks, bytes of a block) uint8.
    """
    if kind in ("f32", "f16"):
        return values.to(torch.float32 if kind == "f32" else torch.float16)
    blocks = values.reshape(-1, BLOCK)
    if kind == "q8_0":
        return _q8_0(blocks)
    bits = int(kind[1])
    return _from_smallest(blocks, bits) if kind.endswith("_1") else _symmetric(blocks, bits)


def _q8_0(blocks: Tensor) -> Tensor:
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    scaled = blocks * _inverse(scale)
    codes = torch.trunc(scaled + torch.copysign(torch.tensor(0.5), scaled))  # halves away from zero
    return torch.cat([_bytes(scale), codes.to(torch.int8).view(torch.uint8)], dim=1)


def _symmetric(blocks: Tensor, bits: int) -> Tensor:
    """The value of largest magnitude, with its sign, gets the code 0."""
    middle = 1 << (bits - 1)
    extreme = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    scale = extreme / -middle
    codes = torch.trunc(blocks * _inverse(scale) + (middle + 0.5)).clamp(max=2 * middle - 1)
    return torch.cat([_bytes(scale), _packed(codes, bits)], dim=1)


def _from_smallest(blocks: Tensor, bits: int) -> Tensor:
    smallest, largest = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)
    top = (1 << bits) - 1
    scale = (largest - smallest) / top
    codes = torch.trunc((blocks - smallest) * _inverse(scale) + 0.5).clamp(max=top)
    return torch.cat([_bytes(scale), _bytes(smallest), _packed(codes, bits)], dim=1)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _bytes(numbers: Tensor) -> Tensor:
    """Numbers (blocks, 1) as float16 bytes (blocks, 2)."""
    return numbers.half().view(torch.uint8)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (blocks, 32) of 4 or 5 bits as bytes: the fifth bits if there are any, then the low four of each."""
    codes = codes.to(torch.int32)
    low = (codes & 15).to(torch.uint8)
    halves = low[:, :_HALF] | (low[:, _HALF:] << 4)
    if bits == 4:
        return halves
    weights = (1 << torch.arange(8, dtype=torch.int32)).expand(BLOCK // 8, 8).reshape(-1)
    fifth = ((codes >> 4) * weights).view(-1, BLOCK // 8, 8).sum(dim=2).to(torch.uint8)
    return torch.cat([fifth, halves], dim=1)
