"""The instruction stream of one launch: the transfers that the host starts in the shim tiles.

A launch of a `TilePlan` is (M, K) @ (K, N), padded, every matrix a `View` of a buffer. Each column of the array moves
its share in turns of at most `row_blocks_per_transfer` row blocks: first the descriptor that receives C, then for each
row block the descriptors that send A and B. Two turns run at the same time, each with its own half of the shim tile's
descriptors; before a third starts, the host waits for the C of the first, which frees all descriptors of that turn. A
launch of a `RowPlan` has one descriptor for each operand and column.

Offsets, sizes and strides are in elements, outermost first. The outermost size is the descriptor's repeat, the other
three its dimensions. A shim tile has one stream for each operand.

`encode` and `decode` convert the instruction stream of the emulated device: little-endian 32-bit words. The stream of a
real device is in `instructions`. Knows nothing of the layouts in memory tiles, of buffers, or of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Direction, Geometry
from tilewhisper.kernels.xdna.row_plan import RowDesign, RowPlan, row_repeats, run_of
from tilewhisper.kernels.xdna.tile_plan import TURNS_AT_ONCE, Design, TilePlan, bias_rows

Plan = TilePlan | RowPlan
AnyDesign = Design | RowDesign
Four = tuple[int, int, int, int]
Words = npt.NDArray[np.uint32]

OPERANDS = ("A", "B", "C")
"""Of a product."""
DIRECTIONS: tuple[Direction, ...] = ("to array", "from array")

_MAGIC = 0x45584E49
_VERSION = 1
_HEADER = 4
_DESCRIPTOR, _WAIT = 1, 2
_DESCRIPTOR_WORDS = 6 + 8
_WAIT_WORDS = 3


@dataclass(frozen=True)
class Descriptor:
    """One transfer between a buffer and the array, started when the stream reaches it."""

    operand: str
    column: int
    direction: Direction
    offset: int
    sizes: Four
    strides: Four
    id: int
    """Number of the shim tile's descriptor that holds it."""


@dataclass(frozen=True)
class Wait:
    """Wait for the oldest transfer of this operand in this column that has not been waited for."""

    column: int
    operand: str


Instruction = Descriptor | Wait


def finish(running: list[Descriptor], wait: Wait) -> bool:
    """Remove the transfers of a column that a wait shows to be done; False if nothing of that operand is running.

    With a result, the operands that it was computed from are done as well: all that were started before its next one.
    """
    places = [place for place, item in enumerate(running) if item.operand == wait.operand]
    if not places:
        return False
    first, end = places[0], places[1] if len(places) > 1 else len(running)
    if running[first].direction == "from array":
        results = [item for item in running[:end] if item.direction == "from array" and item.operand != wait.operand]
        running[:end] = results
    else:
        del running[first]
    return True


def a_column(row: int, array: Geometry | Design) -> int:
    """The column whose shim and memory tile send A to this row of cores."""
    return int(row * array.columns // array.rows)


def a_rows(column: int, array: Geometry | Design) -> range:
    """The consecutive rows of cores whose A this column sends; none in some columns if columns outnumber rows."""
    rows = [row for row in range(array.rows) if a_column(row, array) == column]
    return range(rows[0], rows[-1] + 1) if rows else range(0)


def runtime_sequence(plan: Plan) -> tuple[Instruction, ...]:
    """All instructions of one launch, in order; at its end the results of every column are in their buffers."""
    return tuple(_of_rows(plan)) if isinstance(plan, RowPlan) else _of_product(plan)


def _of_rows(plan: RowPlan) -> Iterator[Instruction]:
    """Results first, so that their transfers are ready when the first rows arrive."""
    columns, operands = range(plan.design.columns), plan.design.operands
    ordered = sorted(range(len(operands)), key=lambda number: operands[number].direction == "to array")
    for column in columns:
        yield from (_rows_of_column(plan, column, number) for number in ordered)
    results = [operand for operand in operands if operand.direction == "from array"]
    yield from (Wait(column, operand.name) for operand in results for column in columns)


def _rows_of_column(plan: RowPlan, column: int, number: int) -> Descriptor:
    operand, width, rows = plan.design.operands[number], plan.design.width, plan.rows_of_column
    run = run_of(width, operand.dtype, plan.device)
    if operand.name == plan.design.shared:
        offset, sizes, strides = 0, (plan.blocks, 1, width // run, run), (0, width, run, 1)
    else:
        times = row_repeats(rows, width, operand.dtype, plan.device)
        offset = column * rows * width
        sizes, strides = (times, rows // times, width // run, run), (rows // times * width, width, run, 1)
    return Descriptor(operand.name, column, operand.direction, offset, sizes, strides, number)


def _of_product(plan: TilePlan) -> tuple[Instruction, ...]:
    turns = list(_turns(plan))
    columns = range(plan.geometry.columns)
    sequence: list[Instruction] = []
    for turn, (first, count) in enumerate(turns):
        for column in columns:
            sequence += _turn_of_column(plan, column, turn, first, count)
        if turn + 1 >= TURNS_AT_ONCE:
            sequence += (Wait(column, "C") for column in columns)
    sequence += (Wait(column, "C") for _ in turns[: TURNS_AT_ONCE - 1] for column in columns)
    return tuple(sequence)


def _turns(plan: TilePlan) -> Iterator[tuple[int, int]]:
    """(first row block, number of row blocks) of each turn."""
    blocks, step = plan.launch.m // (plan.geometry.rows * plan.core.m), plan.row_blocks_per_transfer
    return ((first, min(step, blocks - first)) for first in range(0, blocks, step))


def _turn_of_column(plan: TilePlan, column: int, turn: int, first: int, count: int) -> Iterator[Descriptor]:
    geometry, core, launch = plan.geometry, plan.core, plan.launch
    wide = core.n * geometry.columns
    across, steps, high = launch.n // wide, launch.k // core.k, geometry.rows * core.m
    rows = a_rows(column, geometry)
    base = turn % TURNS_AT_ONCE * (plan.device.shim_descriptors // TURNS_AT_ONCE)
    ids = iter(range(base, plan.device.shim_descriptors))
    of_a, of_c = plan.views.a, plan.views.c

    c_sizes, c_strides = (count, across, high, core.n), (high * of_c.pitch, wide, of_c.pitch, 1)
    c_offset = of_c.offset + first * high * of_c.pitch + column * core.n
    yield Descriptor("C", column, "from array", c_offset, c_sizes, c_strides, next(ids))
    for block in range(first, first + count):
        if rows:
            a_sizes, a_strides = (across, steps, len(rows) * core.m, core.k), (0, core.k, of_a.pitch, 1)
            a_offset = of_a.offset + (block * geometry.rows + rows[0]) * core.m * of_a.pitch
            yield Descriptor("A", column, "to array", a_offset, a_sizes, a_strides, next(ids))
        yield _b_of_column(plan, column, across, next(ids))


def _b_of_column(plan: TilePlan, column: int, across: int, number: int) -> Descriptor:
    """All of a column's B, with the bias below each tile's last row if there is one."""
    geometry, core, of_b = plan.geometry, plan.core, plan.views.b
    wide, steps = core.n * geometry.columns, (plan.launch.k + bias_rows(geometry, core)) // core.k
    if geometry.b_by_columns:
        offset, sizes = column * core.n * of_b.pitch, (across, steps, core.n, core.k)
        strides = (wide * of_b.pitch, core.k, of_b.pitch, 1)
    else:
        offset, sizes = column * core.n, (across, steps, core.k, core.n)
        strides = (wide, core.k * of_b.pitch, of_b.pitch, 1)
    return Descriptor("B", column, "to array", of_b.offset + offset, sizes, strides, number)


def encode(sequence: Sequence[Instruction], operands: Sequence[str] = OPERANDS) -> Words:
    """The words of a sequence; `operands` in the order of the kernel's arguments.

    Raises OverflowError if a field does not fit 32 bits.
    """
    body: list[int] = []
    for item in sequence:
        if isinstance(item, Wait):
            body += (_WAIT, item.column, operands.index(item.operand))
        else:
            operand, direction = operands.index(item.operand), DIRECTIONS.index(item.direction)
            body += (_DESCRIPTOR, item.id, item.column, operand, direction, item.offset, *item.sizes, *item.strides)
    return np.array([_MAGIC, _VERSION, _HEADER + len(body), len(sequence), *body], dtype="<u4")


def decode(words: Words, operands: Sequence[str] = OPERANDS) -> tuple[Instruction, ...]:
    """The sequence that was encoded. Raises ValueError if the words are another format or truncated."""
    if len(words) < _HEADER or words[0] != _MAGIC or words[1] != _VERSION:
        raise ValueError("the words are not an instruction stream of the emulated device")
    length = int(words[2])
    if len(words) < length:
        raise ValueError(f"the instruction stream has {length} words and is truncated to {len(words)}")
    sequence: list[Instruction] = []
    body = [int(word) for word in words[_HEADER:length]]
    at = 0
    while at < len(body):
        width = {_DESCRIPTOR: _DESCRIPTOR_WORDS, _WAIT: _WAIT_WORDS}.get(body[at], 0)
        if not width or at + width > len(body):
            raise ValueError(f"instruction {len(sequence)} is unknown to the emulated device")
        sequence.append(_instruction(body[at : at + width], operands))
        at += width
    if len(sequence) != words[3]:
        raise ValueError(f"the instruction stream declares {words[3]} instructions and holds {len(sequence)}")
    return tuple(sequence)


def _instruction(words: list[int], operands: Sequence[str]) -> Instruction:
    try:
        if words[0] == _WAIT:
            _, column, operand = words
            return Wait(column, operands[operand])
        _, number, column, operand, direction, offset, *pattern = words
        sizes, strides = pattern[:4], pattern[4:]
        return Descriptor(
            operand=operands[operand],
            column=column,
            direction=DIRECTIONS[direction],
            offset=offset,
            sizes=(sizes[0], sizes[1], sizes[2], sizes[3]),
            strides=(strides[0], strides[1], strides[2], strides[3]),
            id=number,
        )
    except IndexError as broken:
        raise ValueError("an instruction has an unknown operand or direction") from broken
