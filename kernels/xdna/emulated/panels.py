"""What the cores of a product receive and send in one launch, as addresses in its buffers.

    DDR --shim descriptors--> stream of a column --memory tile: objects, rows of cores, layout--> stream of a core
    C of a column's cores, one below the other --memory tile: layout--> stream --shim descriptor--> DDR

All objects of a core's steps for one C form a *panel*: (steps, m * k) of A and (steps, k * n) of B, each object in the
order in which it reaches the core. Equal panels are stored once, because the array reads the same data repeatedly.

Knows nothing of the buffers' contents or sizes, of the order of elements inside an object, or of the core's program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.emulated.program import DeviceHang, ProductProgram
from tilewhisper.kernels.xdna.emulated.streams import (
    Addresses,
    Streams,
    addresses,
    extents,
    joined,
    order,
    pieces,
    streams_of,
)
from tilewhisper.kernels.xdna.sequence import Descriptor, Instruction, a_column, a_rows
from tilewhisper.kernels.xdna.tile_plan import bias_rows


class Panels:
    """The distinct panels of one operand, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._panels: list[Addresses] = []

    def number(self, stream: Iterable[Addresses]) -> list[int]:
        """The numbers of all panels of a stream of arrays (any number, steps, object), in order."""
        return [self._number(panel) for panels in stream for panel in panels]

    def _number(self, panel: Addresses) -> int:
        key = panel.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._panels)
            self._panels.append(np.frombuffer(key, np.int32).reshape(panel.shape))
        return self._numbers[key]

    def __getitem__(self, number: int) -> Addresses:
        return self._panels[number]


class ColumnResults(NamedTuple):
    """The results of the cores of one column."""

    order: Addresses
    """Places in a core's object of C, in the order in which the memory tile sends them."""
    destination: Addresses
    """Addresses in C of all elements that the column sends, in order."""
    pairs: list[list[tuple[int, int]]]
    """By tile and core: the numbers of the panels of A and B that are multiplied."""


class ProductRoute(NamedTuple):
    """One launch."""

    extents: tuple[int, ...]
    """Elements that the buffers of A, B and C must hold at least."""
    a: Panels
    b: Panels
    columns: tuple[ColumnResults, ...]


def route_product(program: ProductProgram, device: Device, sequence: Sequence[Instruction]) -> ProductRoute:
    """The route of a launch. Raises DeviceFault and DeviceHang."""
    design = program.design
    streams = streams_of(design, device, sequence)
    a, b = Panels(), Panels()
    to_rows = [a.number(_panels_of_a(streams, program, row)) for row in range(design.rows)]
    to_columns = [b.number(_panels_of_b(streams, program, column)) for column in range(design.columns)]
    results = tuple(
        _results(streams["C", column], program, to_rows, to_columns[column]) for column in range(design.columns)
    )
    return ProductRoute(extents(sequence, design.operands), a, b, results)


def _panels_of_a(streams: Streams, program: ProductProgram, row: int) -> Iterator[Addresses]:
    """Addresses (any number, K / k, m * k) in the order in which they reach the cores of a row."""
    design = program.design
    size, steps = design.core.m * design.core.k, design.k // design.core.k
    column = a_column(row, design)
    rows = a_rows(column, design)
    in_object = order(program.a, size)
    objects = pieces(map(addresses, streams["A", column]), len(rows) * size)
    mine = (each.reshape(-1, len(rows), size)[:, row - rows.start, in_object].reshape(-1) for each in objects)
    return (panels.reshape(-1, steps, size) for panels in pieces(mine, steps * size))


def _panels_of_b(streams: Streams, program: ProductProgram, column: int) -> Iterator[Addresses]:
    """Addresses (any number, K / k, k * n) in the order in which they reach the cores of a column; then the bias."""
    design = program.design
    size = design.core.k * design.core.n
    steps = (design.k + bias_rows(design, design.core)) // design.core.k
    in_object = order(program.b, size)
    objects = pieces(map(addresses, streams["B", column]), size)
    mine = (each[:, in_object].reshape(-1) for each in objects)
    return (panels.reshape(-1, steps, size) for panels in pieces(mine, steps * size))


def _results(
    transfers: list[Descriptor], program: ProductProgram, to_rows: list[list[int]], to_column: list[int]
) -> ColumnResults:
    core = program.design.core
    in_object, destination = order(program.c, core.m * core.n), joined(transfers)
    tiles = -(-destination.size // (len(to_rows) * max(in_object.size, 1)))
    if tiles > min(map(len, (*to_rows, to_column))):
        raise DeviceHang(f"{tiles} tiles of C are expected, but A and B arrived for fewer")
    return ColumnResults(
        in_object, destination, [[(row[tile], to_column[tile]) for row in to_rows] for tile in range(tiles)]
    )
