"""Matrices as tiles in device buffers: cut, fill, read back, and the conversion to bf16.

A tile is found by its place: of A (batch, row, depth), of B (batch, depth, column), of C (batch * depth, row, column),
because calls of different depth write different buffers of C, which the host sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.tile_plan import TilePlan

Bits = npt.NDArray[np.uint16]
"""bf16 as bits, because the buffer protocol has no format for bf16."""
STORED: Mapping[str, type[np.generic]] = {"bf16": np.uint16, "f32": np.float32}
"""dtype of an operand -> of the array that holds it."""
Place = tuple[int, int, int]
Tiles = Mapping[Place, xrt.Buffer]


def places_of_a(plan: TilePlan) -> Iterator[Place]:
    return product(range(plan.shape.batch), range(plan.grid.rows), range(plan.grid.depth))


def places_of_b(plan: TilePlan) -> Iterator[Place]:
    return product(range(plan.shape.batch), range(plan.grid.depth), range(plan.grid.columns))


def places_of_c(plan: TilePlan) -> Iterator[Place]:
    return product(range(plan.shape.batch * plan.grid.depth), range(plan.grid.rows), range(plan.grid.columns))


def fill(tiles: Tiles, data: Bits, shape: tuple[int, int]) -> None:
    """Copy data (batch, rows, columns) into tiles of `shape` and send them; the padding stays zero."""
    height, width = shape
    for (batch, i, j), buffer in tiles.items():
        block = data[batch, i * height : (i + 1) * height, j * width : (j + 1) * width]
        buffer.array[: block.shape[0], : block.shape[1]] = block
        buffer.to_device()


def gather(tiles: Tiles, plan: TilePlan) -> npt.NDArray[np.float32]:
    """Read tiles of C and sum them over depth: (batch, m, n), a copy."""
    height, width = plan.launch.m, plan.launch.n
    whole = np.zeros((plan.shape.batch, plan.padded.m, plan.padded.n), dtype=np.float32)
    for (layer, i, j), buffer in tiles.items():
        buffer.from_device()
        whole[layer // plan.grid.depth, i * height : (i + 1) * height, j * width : (j + 1) * width] += buffer.array
    return np.ascontiguousarray(whole[:, : plan.shape.m, : plan.shape.n])


def join(tiles: Tiles, plan: TilePlan) -> npt.NDArray[np.float64]:
    """Tiles of B as they are in the host's memory: (batch, k, n)."""
    height, width = plan.launch.k, plan.launch.n
    whole = np.zeros((plan.shape.batch, plan.padded.k, plan.padded.n))
    for (batch, i, j), buffer in tiles.items():
        whole[batch, i * height : (i + 1) * height, j * width : (j + 1) * width] = values(buffer.array)
    return whole[:, : plan.shape.k, : plan.shape.n]


def bits(x: Tensor) -> Bits:
    """Each element rounded to the nearest bf16, as bits of x's shape."""
    rounded: npt.NDArray[Any] = x.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    return rounded.view(np.uint16)


def values(bits: Bits) -> npt.NDArray[np.float64]:
    """The values of bf16 bits, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
