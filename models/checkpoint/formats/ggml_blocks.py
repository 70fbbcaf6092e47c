"""ggml's quantised types: blocks of neighbouring values of a row, each with scales of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.stored_tensor import Rows


@dataclass(frozen=True)
class BlockType:
    """A type of blocks; `decode` turns their bytes (blocks, nbytes) to values (blocks, length)."""

    name: str
    length: int
    nbytes: int
    decode: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Blocks(Rows):
    """A tensor of blocks of one type."""

    type: BlockType

    def values(self, stored: Tensor) -> Tensor:
        return self.type.decode(stored.view(-1, self.type.nbytes))


def _q8_0(block: Tensor) -> Tensor:
    """A float16 scale and 32 int8."""
    return _half(block[:, :2]) * block[:, 2:].view(torch.int8)


def _half(stored: Tensor) -> Tensor:
    """Bytes (blocks, 2 n) of float16 numbers as float32 (blocks, n)."""
    return stored.contiguous().view(torch.float16).float()


TYPES: Mapping[int, BlockType] = {8: BlockType("q8_0", 32, 34, _q8_0)}
"""By ggml's number of a type."""
