"""The instruction stream of one launch of a `TilePlan`: the transfers that the host starts in the shim tiles.

A launch is (M, K) @ (K, N), padded, every matrix row-major in its own buffer. Each column of the array moves its share
in turns of at most `row_blocks_per_transfer` row blocks: first the descriptor that receives C, then for each row block
the descriptors that send A and B. Two turns run at the same time, each with its own half of the shim tile's
descriptors; before a third starts, the host waits for the C of the first, which frees all descriptors of that turn.

Offsets, sizes and strides are in elements, outermost first. The outermost size is the descriptor's repeat, the other
three its dimensions. A shim tile has one stream for A, one for B and one for C.

`encode` and `decode` convert the instruction stream of the emulated device: little-endian 32-bit words. The stream of a
real device is in `instructions`. Knows nothing of the layouts in memory tiles, of buffers, or of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Geometry
from tilewhisper.kernels.xdna.tile_plan import TURNS_AT_ONCE, Design, TilePlan

Operand = Literal["A", "B", "C"]
Direction = Literal["to array", "from array"]
Four = tuple[int, int, int, int]
Words = npt.NDArray[np.uint32]

OPERANDS: tuple[Operand, ...] = ("A", "B", "C")
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

    operand: Operand
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
    operand: Operand


Instruction = Descriptor | Wait


def finish(running: list[Descriptor], wait: Wait) -> bool:
    """Remove the transfers of a column that a wait shows to be done; False if nothing of that operand is running.

    With a C, the A and B that it was computed from are done as well: all that were started before the next C.
    """
    places = [place for place, item in enumerate(running) if item.operand == wait.operand]
    if not places:
        return False
    if wait.operand == "C":
        del running[: places[1] if len(places) > 1 else len(running)]
    else:
        del running[places[0]]
    return True


def a_column(row: int, array: Geometry | Design) -> int:
    """The column whose shim and memory tile send A to this row of cores."""
    return int(row * array.columns // array.rows)


def a_rows(column: int, array: Geometry | Design) -> range:
    """The consecutive rows of cores whose A this column sends; none in some columns if columns outnumber rows."""
    rows = [row for row in range(array.rows) if a_column(row, array) == column]
    return range(rows[0], rows[-1] + 1) if rows else range(0)


def runtime_sequence(plan: TilePlan) -> tuple[Instruction, ...]:
    """All instructions of one launch, in order; at its end the C of every column is in its buffer."""
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

    c_sizes, c_strides = (count, across, high, core.n), (high * launch.n, wide, launch.n, 1)
    c_offset = first * high * launch.n + column * core.n
    yield Descriptor("C", column, "from array", c_offset, c_sizes, c_strides, next(ids))
    for block in range(first, first + count):
        if rows:
            a_sizes, a_strides = (across, steps, len(rows) * core.m, core.k), (0, core.k, launch.k, 1)
            a_offset = (block * geometry.rows + rows[0]) * core.m * launch.k
            yield Descriptor("A", column, "to array", a_offset, a_sizes, a_strides, next(ids))
        b_sizes, b_strides = (across, steps, core.k, core.n), (wide, core.k * launch.n, launch.n, 1)
        yield Descriptor("B", column, "to array", column * core.n, b_sizes, b_strides, next(ids))


def encode(sequence: Sequence[Instruction]) -> Words:
    """The words of a sequence. Raises OverflowError if a field does not fit 32 bits."""
    body: list[int] = []
    for item in sequence:
        if isinstance(item, Wait):
            body += (_WAIT, item.column, OPERANDS.index(item.operand))
        else:
            operand, direction = OPERANDS.index(item.operand), DIRECTIONS.index(item.direction)
            body += (_DESCRIPTOR, item.id, item.column, operand, direction, item.offset, *item.sizes, *item.strides)
    return np.array([_MAGIC, _VERSION, _HEADER + len(body), len(sequence), *body], dtype="<u4")


def decode(words: Words) -> tuple[Instruction, ...]:
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
        sequence.append(_instruction(body[at : at + width]))
        at += width
    if len(sequence) != words[3]:
        raise ValueError(f"the instruction stream declares {words[3]} instructions and holds {len(sequence)}")
    return tuple(sequence)


def _instruction(words: list[int]) -> Instruction:
    try:
        if words[0] == _WAIT:
            _, column, operand = words
            return Wait(column, OPERANDS[operand])
        _, number, column, operand, direction, offset, *pattern = words
        sizes, strides = pattern[:4], pattern[4:]
        return Descriptor(
            operand=OPERANDS[operand],
            column=column,
            direction=DIRECTIONS[direction],
            offset=offset,
            sizes=(sizes[0], sizes[1], sizes[2], sizes[3]),
            strides=(strides[0], strides[1], strides[2], strides[3]),
            id=number,
        )
    except IndexError as broken:
        raise ValueError("an instruction has an unknown operand or direction") from broken
