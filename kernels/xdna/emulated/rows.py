"""What the cores of a row function receive and send in one launch, as addresses in its buffers.

The memory tile of a column sends one row of an object to each of its cores, and joins their results in the same order.
A core computes its rows in the order in which they arrive; a shared row arrives once for each block of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device, Operand
from tilewhisper.kernels.xdna.emulated.program import DeviceHang, RowProgram
from tilewhisper.kernels.xdna.emulated.streams import Addresses, Streams, extents, joined, streams_of
from tilewhisper.kernels.xdna.sequence import Instruction


class RowRoute(NamedTuple):
    """One launch: the addresses (rows, width) of each operand, all operands in the same order of rows."""

    extents: tuple[int, ...]
    """Elements that the buffer of each operand must hold at least."""
    operands: tuple[npt.NDArray[np.intp], ...]


def route_rows(program: RowProgram, device: Device, sequence: Sequence[Instruction]) -> RowRoute:
    """The route of a launch. Raises DeviceFault and DeviceHang."""
    design = program.design
    streams = streams_of(design, device, sequence)
    columns = [_column(streams, program, column) for column in range(design.columns)]
    operands = tuple(np.concatenate(parts).astype(np.intp) for parts in zip(*columns, strict=True))
    return RowRoute(extents(sequence, design.operands), operands)


def _column(streams: Streams, program: RowProgram, column: int) -> list[Addresses]:
    """The rows of a column's cores, of each operand: one (rows, width) array, as many rows as results are sent."""
    design = program.design
    found = [_rows(streams, program, operand, column) for operand in design.operands]
    results = [len(rows) for rows, o in zip(found, design.operands, strict=True) if o.direction == "from array"]
    if max(results) > min(map(len, found)):
        raise DeviceHang(
            f"{max(results)} rows of results are expected, but operands arrived for {min(map(len, found))}"
        )
    return [rows[: max(results)] for rows in found]


def _rows(streams: Streams, program: RowProgram, operand: Operand, column: int) -> Addresses:
    design = program.design
    elements = joined(streams[operand.name, column])
    if operand.direction == "from array" and elements.size % (design.rows * design.width):
        raise DeviceHang(f"a transfer of {operand.name} ends inside a row of each core")
    rows = elements[: elements.size // design.width * design.width].reshape(-1, design.width)
    if operand.name == design.shared:  # each core has it for `block` rows, and the column's cores take turns
        return np.repeat(rows, design.block * design.rows, axis=0)
    return rows[: len(rows) // design.rows * design.rows]
