"""ggml's quantised types: blocks of neighbouring values of a row, each with scales of its own.

A small type has 32 values in a block: value = scale * code, or scale * code + minimum. A "K" type has 256, in 8 or 16
groups with scales of few bits: value = scale * group scale * code - minimum scale * group minimum. Codes have an offset
where they are signed. All scales of blocks are float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.stored_tensor import RowStorage


@dataclass(frozen=True)
class BlockType:
    """A type of blocks; `decode` turns their bytes (blocks, nbytes) to values (blocks, length)."""

    name: str
    length: int
    nbytes: int
    decode: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Blocks(RowStorage):
    """A tensor of blocks of one type."""

    type: BlockType

    def values(self, stored: Tensor) -> Tensor:
        blocks = stored.view(-1, self.type.nbytes)
        return self.type.decode(blocks) if len(blocks) else torch.empty(0)  # no view of no blocks has a size of -1


def _q4_0(block: Tensor) -> Tensor:
    scale, codes = block.split([2, 16], dim=1)
    return _half(scale) * (_codes(codes, 4, 16) - 8)


def _q4_1(block: Tensor) -> Tensor:
    scale, minimum, codes = block.split([2, 2, 16], dim=1)
    return _half(scale) * _codes(codes, 4, 16) + _half(minimum)


def _q5_0(block: Tensor) -> Tensor:
    scale, high, low = block.split([2, 4, 16], dim=1)
    return _half(scale) * (_codes(low, 4, 16) + 16 * _codes(high, 1, 1) - 16)


def _q5_1(block: Tensor) -> Tensor:
    scale, minimum, high, low = block.split([2, 2, 4, 16], dim=1)
    return _half(scale) * (_codes(low, 4, 16) + 16 * _codes(high, 1, 1)) + _half(minimum)


def _q8_0(block: Tensor) -> Tensor:
    scale, codes = block.split([2, 32], dim=1)
    values: Tensor = _half(scale) * codes.view(torch.int8)
    return values


def _q2_k(block: Tensor) -> Tensor:
    groups, codes, scale, minimum = block.split([16, 64, 2, 2], dim=1)
    scales, minima = _half(scale) * (groups & 15), _half(minimum) * (groups >> 4)
    return _grouped(scales, _codes(codes, 2, 32), minima)


def _q3_k(block: Tensor) -> Tensor:
    high, low, groups, scale = block.split([32, 64, 12, 2], dim=1)
    group_scales = _codes(groups[:, :8], 4, 8) + 16 * _codes(groups[:, 8:], 2, 4) - 32
    return _grouped(_half(scale) * group_scales, _codes(low, 2, 32) + 4 * _codes(high, 1, 32) - 4)


def _q4_k(block: Tensor) -> Tensor:
    scale, minimum, groups, codes = block.split([2, 2, 12, 128], dim=1)
    return _grouped(*_scales_and_minima(scale, minimum, groups, _codes(codes, 4, 32)))


def _q5_k(block: Tensor) -> Tensor:
    scale, minimum, groups, high, low = block.split([2, 2, 12, 32, 128], dim=1)
    return _grouped(*_scales_and_minima(scale, minimum, groups, _codes(low, 4, 32) + 16 * _codes(high, 1, 32)))


def _q6_k(block: Tensor) -> Tensor:
    low, high, groups, scale = block.split([128, 64, 16, 2], dim=1)
    return _grouped(_half(scale) * groups.view(torch.int8), _codes(low, 4, 64) + 16 * _codes(high, 2, 32) - 32)


def _half(stored: Tensor) -> Tensor:
    """The bytes of a float16 number of each block (blocks, 2) as float32 (blocks, 1)."""
    return stored.contiguous().view(torch.float16).float()


def _codes(packed: Tensor, bits: int, run: int) -> Tensor:
    """Numbers of a few bits from bytes (blocks, n), as float32 (blocks, 8 n / bits).

    `run` bytes have `run` neighbouring numbers in their lowest bits, the next numbers in the bits above, and so on.
    """
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)[:, None]
    codes = (packed.view(len(packed), -1, 1, run) >> shifts) & ((1 << bits) - 1)
    return codes.view(len(packed), -1).float()


def _scales_and_minima(scale: Tensor, minimum: Tensor, groups: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A K block's group scales, codes and group minima; `groups` packs 8 scales and 8 minima of 6 bits in 12 bytes.

    The first 4 scales and minima are bytes 0 to 7, whose upper 2 bits belong to the others; these have their lower 4
    bits in bytes 8 to 11.
    """
    scales, minima, rest = groups.split(4, dim=1)
    all_scales = torch.cat([scales & 63, (rest & 15) | ((scales >> 6) << 4)], dim=1)
    all_minima = torch.cat([minima & 63, (rest >> 4) | ((minima >> 6) << 4)], dim=1)
    return _half(scale) * all_scales, codes, _half(minimum) * all_minima


def _grouped(scales: Tensor, codes: Tensor, minima: Tensor | None = None) -> Tensor:
    """Codes (blocks, 256) times the scale of their group (blocks, groups), less its minimum."""
    values = codes.view(*scales.shape, -1) * scales[..., None]
    if minima is not None:
        values -= minima[..., None]
    return values.view(codes.shape)


TYPES: Mapping[int, BlockType] = {
    2: BlockType("q4_0", 32, 18, _q4_0),
    3: BlockType("q4_1", 32, 20, _q4_1),
    6: BlockType("q5_0", 32, 22, _q5_0),
    7: BlockType("q5_1", 32, 24, _q5_1),
    8: BlockType("q8_0", 32, 34, _q8_0),
    10: BlockType("q2_K", 256, 84, _q2_k),
    11: BlockType("q3_K", 256, 110, _q3_k),
    12: BlockType("q4_K", 256, 144, _q4_k),
    13: BlockType("q5_K", 256, 176, _q5_k),
    14: BlockType("q6_K", 256, 210, _q6_k),
}
"""By ggml's number of a type."""
