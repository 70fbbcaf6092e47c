"""The configuration of a function of rows.

DDR -> shim tile -> memory tile -> cores      an operand's rows go round the cores of a column; a shared row to all
cores -> memory tile -> shim tile -> DDR      the results of a column's cores are joined
"""

from __future__ import annotations

from collections.abc import Iterator

from tilewhisper.kernels.xdna.array import Operand
from tilewhisper.kernels.xdna.designs.names import Port
from tilewhisper.kernels.xdna.designs.structure import (
    FOREVER,
    MEMORY_ROW,
    SHIM_ROW,
    Acquire,
    Block,
    Call,
    Core,
    Fifo,
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
from tilewhisper.kernels.xdna.row_plan import RowDesign, RowPlan


def row_structure(plan: RowPlan, kernels: MicroKernels) -> Structure:
    """The configuration that a function of rows needs."""
    design = plan.design
    function = kernels.function(design.function, tuple(_row(design, o) for o in design.operands), design.width)
    columns, rows = range(design.columns), range(design.rows)
    return Structure(
        device=plan.device.name,
        functions=(function,),
        tiles=tiles_of(design.rows, design.columns),
        fifos=tuple(
            fifo for column in columns for operand in design.operands for fifo in _fifos(design, operand, column)
        ),
        links=tuple(_link(design, operand, column) for column in columns for operand in design.operands),
        cores=tuple(
            Core(core_place(column, row), _program(design, row, column), plan.device.stack_bytes)
            for row in rows
            for column in columns
        ),
        arguments=tuple(
            Block((elements // design.width, design.width), operand.dtype)
            for operand, elements in zip(design.operands, plan.elements, strict=True)
        ),
    )


def _row(design: RowDesign, operand: Operand) -> Block:
    return Block((design.width,), operand.dtype)


def _core_fifo(design: RowDesign, operand: Operand, row: int, column: int) -> str:
    """Between a memory tile and a core, or for the shared operand all cores of the column."""
    if operand.name == design.shared:
        return f"{operand.name}_column_{column}"
    return f"{operand.name}_core_{row}_{column}"


def _fifos(design: RowDesign, operand: Operand, column: int) -> Iterator[Fifo]:
    shim, memory = Place(column, SHIM_ROW), Place(column, MEMORY_ROW)
    one = _row(design, operand)
    cores = tuple(core_place(column, row) for row in range(design.rows))
    if operand.name == design.shared:
        yield Fifo(shim_fifo(operand.name, column), shim, (memory,), one)
        yield Fifo(_core_fifo(design, operand, 0, column), memory, cores, one)
        return
    joined = Block((design.rows * one.elements,), operand.dtype)
    if operand.direction == "to array":
        yield Fifo(shim_fifo(operand.name, column), shim, (memory,), joined)
    for row, core in enumerate(cores):
        ends = (memory, core) if operand.direction == "to array" else (core, memory)
        yield Fifo(_core_fifo(design, operand, row, column), ends[0], (ends[1],), one)
    if operand.direction == "from array":
        yield Fifo(shim_fifo(operand.name, column), memory, (shim,), joined)


def _link(design: RowDesign, operand: Operand, column: int) -> Link:
    shim = (shim_fifo(operand.name, column),)
    if operand.name == design.shared:
        return Link(shim, (_core_fifo(design, operand, 0, column),))
    cores = tuple(_core_fifo(design, operand, row, column) for row in range(design.rows))
    offsets = part_offsets(design.rows, _row(design, operand))
    if operand.direction == "to array":
        return Link(shim, cores, output_offsets=offsets)
    return Link(cores, shim, input_offsets=offsets)


def _program(design: RowDesign, row: int, column: int) -> tuple[Step, ...]:
    names = {operand.name: _core_fifo(design, operand, row, column) for operand in design.operands}
    own = [operand for operand in design.operands if operand.name != design.shared]
    one_row: tuple[Step, ...] = (
        *(Acquire(names[operand.name], _port(operand)) for operand in own),
        Call(design.function, tuple(names.values())),
        *(Release(names[operand.name], _port(operand)) for operand in own),
    )
    if design.shared is None:
        return (Loop(FOREVER, one_row),)
    shared = names[design.shared]
    block = (Acquire(shared, "consume"), Loop(design.block, one_row), Release(shared, "consume"))
    return (Loop(FOREVER, block),)


def _port(operand: Operand) -> Port:
    return "consume" if operand.direction == "to array" else "produce"
