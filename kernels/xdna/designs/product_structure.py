"""The configuration of a product.

    DDR -> shim tile -> memory tile -> cores      A: a FIFO per row of cores, B: a FIFO per column, both broadcast
    cores -> memory tile -> shim tile -> DDR      C: a FIFO per core, joined in the column's memory tile

A core sums in the object of C that it sends, or where C is rounded, in a buffer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tilewhisper.kernels.xdna.designs.names import TYPES
from tilewhisper.kernels.xdna.designs.structure import (
    FOREVER,
    MEMORY_ROW,
    SHIM_ROW,
    Acquire,
    Block,
    Buffer,
    Call,
    Core,
    Fifo,
    Function,
    Layout,
    Link,
    Loop,
    MicroKernels,
    Place,
    Release,
    Step,
    Structure,
    core_place,
    part_offsets,
    shim_fifo,
    tiles_of,
)
from tilewhisper.kernels.xdna.sequence import a_column, a_rows
from tilewhisper.kernels.xdna.tile_plan import TilePlan, View
from tilewhisper.kernels.xdna.transfers import transfers


class _Objects(NamedTuple):
    """The objects of a core's operands, and its sums."""

    a: Block
    b: Block
    c: Block
    sums: Block


class _Functions(NamedTuple):
    zero: Function
    matmul: Function
    finish: Function | None
    """Writes the rounded sums to C."""


def product_structure(plan: TilePlan, kernels: MicroKernels) -> Structure:
    """The configuration that a product needs."""
    g, objects = plan.geometry, _objects(plan)
    functions = _functions(plan, objects, kernels)
    design = plan.design
    return Structure(
        device=plan.device.name,
        functions=tuple(function for function in functions if function),
        tiles=tiles_of(g.rows, g.columns),
        fifos=(*_fifos_of_a(plan, objects.a), *_fifos_of_b(plan, objects.b), *_fifos_of_c(plan, objects.c)),
        links=tuple(_links(plan, objects.a, objects.c)),
        cores=tuple(
            _core(plan, row, column, objects, functions) for row in range(g.rows) for column in range(g.columns)
        ),
        arguments=tuple(_argument(plan.views.of(operand.name), operand.dtype) for operand in design.operands),
    )


def _argument(view: View, dtype: str) -> Block:
    return Block((view.rows, view.pitch), dtype)


def _objects(plan: TilePlan) -> _Objects:
    g, core = plan.geometry, plan.core
    b = (core.n, core.k) if g.b_by_columns else (core.k, core.n)
    sums = g.dtype_out if g.finish == "none" else "f32"
    c = (core.m, core.n)
    return _Objects(Block((core.m, core.k), g.dtype_in), Block(b, g.dtype_in), Block(c, g.dtype_out), Block(c, sums))


def _functions(plan: TilePlan, objects: _Objects, kernels: MicroKernels) -> _Functions:
    g, (a, b, c, sums) = plan.geometry, objects
    into, out, result = TYPES[g.dtype_in], TYPES[sums.dtype], TYPES[g.dtype_out]
    stored = "_transposed" if g.b_by_columns else ""
    finishes = {
        "none": None,
        "round": kernels.function(f"round_{result}", (sums, c), plan.core),
        "bias": kernels.function(f"finish_{result}", (sums, b, c), plan.core),
    }
    return _Functions(
        kernels.function(f"zero_{out}", (sums,), plan.core),
        kernels.function(f"matmul{stored}_{into}_{out}", (a, b, sums), plan.core),
        finishes[g.finish],
    )


def _core(plan: TilePlan, row: int, column: int, objects: _Objects, functions: _Functions) -> Core:
    k_steps, place = plan.launch.k // plan.core.k, core_place(column, row)
    own = () if functions.finish is None else (Buffer(f"sums_{column}_{row}", objects.sums),)
    program = _program(plan, row, column, k_steps, functions, own[0].name if own else _core_of_c(row, column))
    return Core(place, program, plan.device.stack_bytes, own)


def _program(plan: TilePlan, row: int, column: int, k_steps: int, functions: _Functions, sums: str) -> tuple[Step, ...]:
    a, b, c = _row_of_a(row), _column_of_b(column), _core_of_c(row, column)
    step = (
        Acquire(a, "consume"),
        Acquire(b, "consume"),
        Call(functions.matmul.name, (a, b, sums)),
        Release(a, "consume"),
        Release(b, "consume"),
    )
    product = (Call(functions.zero.name, (sums,)), Loop(k_steps, step))
    get, send = Acquire(c, "produce"), Release(c, "produce")
    finish = functions.finish.name if functions.finish else ""
    match plan.geometry.finish:
        case "none":
            tile: tuple[Step, ...] = (get, *product, send)
        case "round":
            tile = (*product, get, Call(finish, (sums, c)), send)
        case "bias":
            tile = (
                *product,
                Acquire(b, "consume"),
                get,
                Call(finish, (sums, b, c)),
                send,
                Release(b, "consume"),
            )
    return (Loop(FOREVER, tile),)


def _row_of_a(row: int) -> str:
    return f"A_row_{row}"


def _column_of_b(column: int) -> str:
    return f"B_column_{column}"


def _core_of_c(row: int, column: int) -> str:
    return f"C_core_{row}_{column}"


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
        cores = tuple(core_place(column, row) for column in range(g.columns))
        yield Fifo(_row_of_a(row), Place(a_column(row, g), MEMORY_ROW), cores, block, _layout(plan, "A"))


def _fifos_of_b(plan: TilePlan, block: Block) -> Iterator[Fifo]:
    g = plan.geometry
    for column in range(g.columns):
        shim, memory = Place(column, SHIM_ROW), Place(column, MEMORY_ROW)
        cores = tuple(core_place(column, row) for row in range(g.rows))
        yield Fifo(shim_fifo("B", column), shim, (memory,), Block((block.elements,), block.dtype))
        yield Fifo(_column_of_b(column), memory, cores, block, _layout(plan, "B"))


def _fifos_of_c(plan: TilePlan, block: Block) -> Iterator[Fifo]:
    g = plan.geometry
    joined = Block((g.rows * block.elements,), block.dtype)
    for column in range(g.columns):
        shim, memory = Place(column, SHIM_ROW), Place(column, MEMORY_ROW)
        for row in range(g.rows):
            yield Fifo(_core_of_c(row, column), core_place(column, row), (memory,), block)
        yield Fifo(shim_fifo("C", column), memory, (shim,), joined, _layout(plan, "C"))


def _links(plan: TilePlan, a: Block, c: Block) -> Iterator[Link]:
    g = plan.geometry
    for column in range(g.columns):
        if rows := a_rows(column, g):
            yield Link(
                (shim_fifo("A", column),), tuple(map(_row_of_a, rows)), output_offsets=part_offsets(len(rows), a)
            )
        yield Link((shim_fifo("B", column),), (_column_of_b(column),))
        cores = tuple(_core_of_c(row, column) for row in range(g.rows))
        yield Link(cores, (shim_fifo("C", column),), input_offsets=part_offsets(g.rows, c))
