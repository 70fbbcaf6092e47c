"""The array's configuration for one launch of a `TilePlan`: tiles, object FIFOs, links and core programs. Data only.

    DDR -> shim tile -> memory tile -> cores      A: a FIFO per row of cores, B: a FIFO per column, both broadcast
    cores -> memory tile -> shim tile -> DDR      C: a FIFO per core, joined in the column's memory tile

`structure_of` derives it from a plan, `reader` reads it from a text, and `check` compares the two. Sizes, strides and
offsets are in elements, outermost first. Knows neither the syntax nor the host's instruction stream (`xdna.sequence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import NamedTuple

from tilewhisper.kernels.xdna.array import DTYPE_BYTES, Tile
from tilewhisper.kernels.xdna.designs.names import TYPES, Port
from tilewhisper.kernels.xdna.sequence import a_column, a_rows
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.transfers import transfers

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
class Call:
    """A call of an external function on the objects acquired from these FIFOs."""

    function: str
    fifos: tuple[str, ...]


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
    """The runtime sequence's arguments: the buffers of A, B and C."""


def structure_of(plan: TilePlan, kernels: MicroKernels) -> Structure:
    """The configuration that a plan needs."""
    g, core, launch = plan.geometry, plan.core, plan.launch
    a, b = Block((core.m, core.k), g.dtype_in), Block((core.k, core.n), g.dtype_in)
    c = Block((core.m, core.n), g.dtype_out)
    zero = kernels.function(f"zero_{TYPES[g.dtype_out]}", (c,), core)
    matmul = kernels.function(f"matmul_{TYPES[g.dtype_in]}_{TYPES[g.dtype_out]}", (a, b, c), core)
    return Structure(
        device=plan.device.name,
        functions=(zero, matmul),
        tiles=tuple(Place(column, row) for row in range(FIRST_CORE_ROW + g.rows) for column in range(g.columns)),
        fifos=(*_fifos_of_a(plan, a), *_fifos_of_b(plan, b), *_fifos_of_c(plan, c)),
        links=tuple(_links(plan, a, c)),
        cores=tuple(
            Core(
                _core(column, row),
                _program(row, column, launch.k // core.k, zero, matmul),
                plan.device.stack_bytes,
            )
            for row in range(g.rows)
            for column in range(g.columns)
        ),
        arguments=(
            Block((launch.m, launch.k), g.dtype_in),
            Block((launch.k, launch.n), g.dtype_in),
            Block((launch.m, launch.n), g.dtype_out),
        ),
    )


def shim_fifo(operand: str, column: int) -> str:
    """The name of the FIFO between DDR and a column's memory tile, which the runtime sequence refers to."""
    return f"{operand}_shim_{column}"


def steps_of(program: tuple[Step, ...]) -> Iterator[Step]:
    """Every step of a program in order, a loop before the steps of its body."""
    for step in program:
        yield step
        if isinstance(step, Loop):
            yield from steps_of(step.body)


def _row_of_a(row: int) -> str:
    return f"A_row_{row}"


def _column_of_b(column: int) -> str:
    return f"B_column_{column}"


def _core_of_c(row: int, column: int) -> str:
    return f"C_core_{row}_{column}"


def _core(column: int, row: int) -> Place:
    return Place(column, FIRST_CORE_ROW + row)


def _layout(plan: TilePlan, operand: str) -> Layout:
    (found,) = (t for t in transfers(plan) if (t.operand, t.at) == (operand, "memory tile"))
    return tuple(zip(found.sizes, found.strides, strict=True))


def _fifos_of_a(plan: TilePlan, block: Block) -> Iterator[Fifo]:
    g = plan.geometry
    for column in range(g.columns):
        if rows := a_rows(column, g):
            joined = Block((len(rows) * block.elements,), block.dtype)
            yield Fifo(shim_fifo("A", column), Place(column, SHIM_ROW), (Place(column, MEMORY_ROW),), joined)
    for row in range(g.rows):
        cores = tuple(_core(column, row) for column in range(g.columns))
        yield Fifo(_row_of_a(row), Place(a_column(row, g), MEMORY_ROW), cores, block, _layout(plan, "A"))


def _fifos_of_b(plan: TilePlan, block: Block) -> Iterator[Fifo]:
    g = plan.geometry
    for column in range(g.columns):
        shim, memory = Place(column, SHIM_ROW), Place(column, MEMORY_ROW)
        cores = tuple(_core(column, row) for row in range(g.rows))
        yield Fifo(shim_fifo("B", column), shim, (memory,), Block((block.elements,), block.dtype))
        yield Fifo(_column_of_b(column), memory, cores, block, _layout(plan, "B"))


def _fifos_of_c(plan: TilePlan, block: Block) -> Iterator[Fifo]:
    g = plan.geometry
    joined = Block((g.rows * block.elements,), block.dtype)
    for column in range(g.columns):
        shim, memory = Place(column, SHIM_ROW), Place(column, MEMORY_ROW)
        for row in range(g.rows):
            yield Fifo(_core_of_c(row, column), _core(column, row), (memory,), block)
        yield Fifo(shim_fifo("C", column), memory, (shim,), joined, _layout(plan, "C"))


def _links(plan: TilePlan, a: Block, c: Block) -> Iterator[Link]:
    g = plan.geometry
    for column in range(g.columns):
        if rows := a_rows(column, g):
            yield Link((shim_fifo("A", column),), tuple(map(_row_of_a, rows)), output_offsets=_offsets(len(rows), a))
        yield Link((shim_fifo("B", column),), (_column_of_b(column),))
        cores = tuple(_core_of_c(row, column) for row in range(g.rows))
        yield Link(cores, (shim_fifo("C", column),), input_offsets=_offsets(g.rows, c))


def _offsets(count: int, block: Block) -> tuple[int, ...]:
    """Offsets of the parts; mlir-aie expects none for a single part."""
    return tuple(i * block.elements for i in range(count)) if count > 1 else ()


def _program(row: int, column: int, k_steps: int, zero: Function, matmul: Function) -> tuple[Step, ...]:
    a, b, c = _row_of_a(row), _column_of_b(column), _core_of_c(row, column)
    step = (
        Acquire(a, "consume"),
        Acquire(b, "consume"),
        Call(matmul.name, (a, b, c)),
        Release(a, "consume"),
        Release(b, "consume"),
    )
    tile = (Acquire(c, "produce"), Call(zero.name, (c,)), Loop(k_steps, step), Release(c, "produce"))
    return (Loop(FOREVER, tile),)
