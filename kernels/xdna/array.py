"""The vocabulary of an AI Engine array: tiles, the limits of a device, and the ways to cut a product for it.

Types only. The devices are in `devices`, the geometries in `geometries`, and `tiling` cuts a product with them.
Sizes of memories are in bytes; limits of buffer descriptors are in 32-bit words, as the hardware counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

WORD_BYTES = 4
DTYPE_BYTES: Mapping[str, int] = {"bf16": 2, "f32": 4, "int8": 1, "int32": 4}

Direction = Literal["to array", "from array"]
Finish = Literal["none", "round", "bias"]
"""What a core does with the finished sums of a tile, before they leave as its result: nothing; round them to the
result's dtype; add the bias below B, apply the activation that it names, and round."""


@dataclass(frozen=True)
class Operand:
    """One buffer of a design, in the order of the kernel's arguments."""

    name: str
    dtype: str
    direction: Direction


@dataclass(frozen=True)
class Tile:
    """A block of a product: (m, k) @ (k, n)."""

    m: int
    k: int
    n: int

    @property
    def multiply_adds(self) -> int:
        return self.m * self.k * self.n

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"


@dataclass(frozen=True)
class MicroKernel:
    """The matrix instruction of a core and the vectorised loop around it."""

    tile: Tile
    """(r, s, t) of one matrix instruction."""
    block: Tile
    """The block that one pass of the loop computes."""


@dataclass(frozen=True)
class Device:
    """An array of cores and the limits of its memories and descriptors."""

    name: str
    summary: str
    rows: int
    columns: int
    micro_kernels: Mapping[str, MicroKernel] = field(hash=False)
    """By input dtype."""
    max_contexts: int
    """Designs that all processes together may have loaded at the same time."""
    l1_bytes: int = 64 * 1024
    """Local memory of a core."""
    stack_bytes: int = 0xD00
    """Part of a core's L1 that is reserved for its stack: as much as mlir-aie's own designs reserve for this
    micro-kernel. Its default of 1,024 is too small, and an overflow writes over the buffers without an error."""
    l2_bytes: int = 512 * 1024
    """Of a memory tile; each column has one memory tile."""
    shim_descriptors: int = 16
    task_queue: int = 4
    """Transfers that the queue of a shim tile's channel holds. One more is lost, and whoever waits for it hangs."""
    shim_dimensions: int = 3
    """Not counting the repeat."""
    memory_dimensions: int = 4
    max_wrap: int = 1023
    max_repeat: int = 64
    max_stride: int = 2**20

    @property
    def cores(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Geometry:
    """A way to cut products, as data."""

    name: str
    summary: str
    devices: tuple[str, ...]
    rows: int
    columns: int
    core_tiles: tuple[Tile, ...]
    """Candidates; a product uses the tile that pads n least, and the first of equals."""
    call: Tile | None = None
    """The block that one host call computes; None where a call computes a whole product."""
    dtype_in: str = "bf16"
    dtype_out: str = "f32"
    b_by_columns: bool = False
    """B is stored as (n, k), column by column."""
    finish: Finish = "none"

    @property
    def cores(self) -> int:
        return self.rows * self.columns


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
