"""The array's configuration for one launch: tiles, object FIFOs, links, buffers and core programs. Data only.

`configuration` derives it from a plan, `reader` reads it from a text, and `check` compares the two. Sizes, strides and
offsets are in elements, outermost first. Knows neither the syntax nor the host's instruction stream (`xdna.sequence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import NamedTuple

from tilewhisper.kernels.xdna.array import DTYPE_BYTES, Tile
from tilewhisper.kernels.xdna.designs.names import Port

SHIM_ROW, MEMORY_ROW, FIRST_CORE_ROW = 0, 1, 2
DEPTH = 2
"""Objects of a FIFO: one is filled while the other is used."""

FOREVER = 2**63 - 1

Layout = tuple[tuple[int, int], ...]
"""(size, stride) of each dimension; empty if the object is sent in memory order."""


class Place(NamedTuple):
    """The coordinates of an array tile; row 0 has the shim tiles, row 1 the memory tiles."""

    column: int
    row: int

    def __str__(self) -> str:
        return f"tile ({self.column}, {self.row})"


@dataclass(frozen=True)
class Block:
    """The type of a block of numbers."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Fifo:
    name: str
    producer: Place
    consumers: tuple[Place, ...]
    block: Block
    to_stream: Layout = ()
    """The order in which the producer reads an object, or each of the objects joined in it."""
    depth: int = DEPTH


@dataclass(frozen=True)
class Link:
    """FIFOs joined or split in a memory tile; offsets are the places of the several FIFOs in the single FIFO."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_offsets: tuple[int, ...] = ()
    output_offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Acquire:
    fifo: str
    port: Port


@dataclass(frozen=True)
class Release:
    fifo: str
    port: Port


@dataclass(frozen=True)
class Buffer:
    """Memory of a core that no transfer touches."""

    name: str
    block: Block


@dataclass(frozen=True)
class Call:
    """A call of an external function on the objects acquired from FIFOs, and on the core's buffers, by name."""

    function: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Loop:
    times: int
    body: tuple[Step, ...]


Step = Acquire | Release | Call | Loop


@dataclass(frozen=True)
class Core:
    place: Place
    program: tuple[Step, ...]
    stack_bytes: int
    buffers: tuple[Buffer, ...] = ()


@dataclass(frozen=True)
class Function:
    """An external function: a micro-kernel."""

    name: str
    arguments: tuple[Block, ...]
    object_file: str
    """With forward slashes, also on Windows."""


@dataclass(frozen=True)
class MicroKernels:
    """Where the compiled micro-kernels of a design are."""

    folder: PurePath

    def function(self, name: str, arguments: tuple[Block, ...], size: Tile | int) -> Function:
        """A function compiled for this core tile or row width, in an object file of its own."""
        return Function(name, arguments, (self.folder / f"{name}_{size}.o").as_posix())


@dataclass(frozen=True)
class Structure:
    device: str
    functions: tuple[Function, ...]
    tiles: tuple[Place, ...]
    fifos: tuple[Fifo, ...]
    links: tuple[Link, ...]
    cores: tuple[Core, ...]
    arguments: tuple[Block, ...]
    """The runtime sequence's arguments: the buffer of each operand."""


def shim_fifo(operand: str, column: int) -> str:
    """The name of the FIFO between DDR and a column's memory tile, which the runtime sequence refers to."""
    return f"{operand}_shim_{column}"


def steps_of(program: tuple[Step, ...]) -> Iterator[Step]:
    """Every step of a program in order, a loop before the steps of its body."""
    for step in program:
        yield step
        if isinstance(step, Loop):
            yield from steps_of(step.body)


def core_place(column: int, row: int) -> Place:
    """The place of a core, by its row among the cores."""
    return Place(column, FIRST_CORE_ROW + row)


def tiles_of(rows: int, columns: int) -> tuple[Place, ...]:
    """The shim tiles, the memory tiles and the cores in use."""
    return tuple(Place(column, row) for row in range(FIRST_CORE_ROW + rows) for column in range(columns))


def part_offsets(count: int, block: Block) -> tuple[int, ...]:
    """Offsets of the parts of a joined object; mlir-aie expects none for a single part."""
    return tuple(i * block.elements for i in range(count)) if count > 1 else ()
