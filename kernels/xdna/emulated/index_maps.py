"""Shim descriptors and memory-tile layouts of one launch, composed into index maps between buffers and matrices.

    DDR --shim descriptors--> stream of a column --memory tile: objects, rows of cores, layout--> stream of a core
    core, forever: C = 0; for K / k steps: C += A @ B in (r, s, t) blocks; send C
    C of a column's cores, one below the other --memory tile: layout--> stream --shim descriptor--> DDR

All of a core's steps for one C form a *panel*: (m, K) of A and (K, n) of B, as addresses in the buffers. Equal panels
are stored once, so data that the array reads repeatedly is multiplied once: panels of A that are multiplied by the same
panels of B are stacked into one matrix product. A correct design composes to one product of the buffers in memory
order, and then no map is needed. Addresses are in elements.

Knows nothing of the buffers' contents or sizes, and does no arithmetic on values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device, Tile
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, Layout, Program
from tilewhisper.kernels.xdna.sequence import OPERANDS, Descriptor, Instruction, Operand, Wait, a_column, a_rows, finish

Addresses = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]

_ADDRESSABLE = 2**31  # elements, of an int32


class Gather(NamedTuple):
    """A matrix in a buffer."""

    shape: tuple[int, int]
    addresses: Index | None
    """Row by row; None if the matrix is the beginning of the buffer in memory order."""


class Group(NamedTuple):
    """Stacked panels of A and the panels of B, side by side, that each is multiplied by: one product."""

    a: Gather
    b: Gather


class Scatter(NamedTuple):
    """Where results go; `source` indexes the products of the groups, concatenated row by row."""

    source: Index
    destination: Index


class Route(NamedTuple):
    """The reads, products and writes of one launch."""

    extents: tuple[int, int, int]
    """Elements that the buffers of A, B and C must hold at least."""
    groups: tuple[Group, ...]
    scatter: Scatter | None
    """None if the only product is C in memory order."""


def compose(program: Program, device: Device, sequence: Sequence[Instruction]) -> Route:
    """The route of a launch. Raises DeviceFault and DeviceHang."""
    rows, columns = range(program.design.rows), range(program.design.columns)
    streams = _streams(program, device, sequence)
    a, b = _Panels(), _Panels()
    to_rows = [a.number(_panels_of_a(streams, program, row)) for row in rows]
    to_columns = [b.number(_panels_of_b(streams, program, column)) for column in columns]
    results = [_Results(streams["C", column], program, to_rows, to_columns[column]) for column in columns]
    stacks = _stacked(results, a, b)
    groups = tuple(Group(_gather(a.maps(s.a), 0), _gather(b.maps(s.b), 1)) for s in stacks)
    return Route(_extents(sequence), groups, _scatter(results, stacks, program.design.core))


_Streams = dict[tuple[Operand, int], list[Descriptor]]
"""By operand and column: the transfers in order; of C only transfers with a wait."""


def _streams(program: Program, device: Device, sequence: Sequence[Instruction]) -> _Streams:
    columns = range(program.design.columns)
    streams: _Streams = {(operand, column): [] for operand in OPERANDS for column in columns}
    running: list[list[Descriptor]] = [[] for _ in columns]
    for item in sequence:
        if item.column not in columns:
            raise DeviceFault(f"the design has no column {item.column}")
        active = running[item.column]
        if isinstance(item, Wait):
            if not finish(active, item):
                raise DeviceHang(f"column {item.column} waits for a {item.operand} without a transfer")
            continue
        if item.id >= device.shim_descriptors or item.id in {other.id for other in active}:
            raise DeviceFault(f"descriptor {item.id} of column {item.column} is in use or does not exist")
        if item.direction != ("from array" if item.operand == "C" else "to array"):
            raise DeviceHang(f"no stream moves {item.operand} {item.direction}")
        if sum(other.operand == item.operand for other in active) == device.task_queue:
            raise DeviceHang(
                f"the transfer of {item.operand} in descriptor {item.id} of column {item.column} was lost: "
                f"the queue of its channel already held {device.task_queue}"
            )
        active.append(item)
        streams[item.operand, item.column].append(item)
    # A launch ends with its stream; results without a wait may not have arrived.
    for column in columns:
        arrived = streams["C", column]
        del arrived[len(arrived) - sum(d.operand == "C" for d in running[column]) :]
    return streams


def _last(d: Descriptor) -> int:
    return d.offset + sum((size - 1) * stride for size, stride in zip(d.sizes, d.strides, strict=True))


def _extents(sequence: Sequence[Instruction]) -> tuple[int, int, int]:
    ends = dict.fromkeys(OPERANDS, 0)
    for item in sequence:
        if isinstance(item, Descriptor) and all(item.sizes):
            ends[item.operand] = max(ends[item.operand], _last(item) + 1)
    return ends["A"], ends["B"], ends["C"]


def _addresses(d: Descriptor) -> Addresses:
    if _last(d) >= _ADDRESSABLE:
        raise DeviceFault(f"element {_last(d):,} of {d.operand} is outside every buffer")
    return _walk(d.offset, d.sizes, d.strides)


def _walk(offset: int, sizes: Sequence[int], strides: Sequence[int]) -> Addresses:
    flat = np.array(offset, np.int32)
    for size, stride in zip(sizes, strides, strict=True):
        flat = np.add.outer(flat, np.arange(size, dtype=np.int32) * np.int32(stride if size > 1 else 0))
    return flat.reshape(-1)


def _order(layout: Layout, size: int) -> Addresses:
    order = _walk(0, layout.sizes, layout.strides)
    if order.size and order.max() >= size:
        raise DeviceFault(f"a memory tile reads element {order.max():,} of an object of {size:,}")
    return order


def _pieces(stream: Iterable[Addresses], size: int) -> Iterator[Addresses]:
    """The stream cut into arrays (any number, size). An incomplete piece at its end is dropped."""
    rest = np.empty(0, np.int32)
    for part in stream:
        joined = np.concatenate((rest, part)) if rest.size else part
        whole = joined.size // size * size
        rest = joined[whole:]
        if whole:
            yield joined[:whole].reshape(-1, size)


def _panels_of_a(streams: _Streams, program: Program, row: int) -> Iterator[Addresses]:
    """Addresses (any number, m, K) in the order in which they reach the cores of a row."""
    design, micro = program.design, program.micro
    m, k, r, s = design.core.m, design.core.k, micro.m, micro.k
    column = a_column(row, design)
    rows = a_rows(column, design)
    order = _order(program.a, m * k)
    objects = _pieces(map(_addresses, streams["A", column]), len(rows) * m * k)
    mine = (each.reshape(-1, len(rows), m * k)[:, row - rows.start, order].reshape(-1) for each in objects)
    for panels in _pieces(mine, m * design.k):
        blocks = panels.reshape(-1, design.k // k, m // r, k // s, r, s)
        yield blocks.transpose(0, 2, 4, 1, 3, 5).reshape(-1, m, design.k)


def _panels_of_b(streams: _Streams, program: Program, column: int) -> Iterator[Addresses]:
    """Addresses (any number, K, n) in the order in which they reach the cores of a column."""
    design, micro = program.design, program.micro
    k, n, s, t = design.core.k, design.core.n, micro.k, micro.n
    order = _order(program.b, k * n)
    objects = _pieces(map(_addresses, streams["B", column]), k * n)
    for panels in _pieces((each[:, order].reshape(-1) for each in objects), design.k * n):
        blocks = panels.reshape(-1, design.k // k, k // s, n // t, s, t)
        yield blocks.transpose(0, 1, 2, 4, 3, 5).reshape(-1, design.k, n)


class _Panels:
    """The distinct panels of one operand, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._maps: list[Addresses] = []

    def number(self, stream: Iterable[Addresses]) -> list[int]:
        """The numbers of all panels of a stream, in order."""
        return [self._number(panel) for panels in stream for panel in panels]

    def _number(self, panel: Addresses) -> int:
        key = panel.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self._maps)
            self._maps.append(np.frombuffer(key, np.int32).reshape(panel.shape))
        return self._numbers[key]

    def maps(self, numbers: Iterable[int]) -> list[Addresses]:
        return [self._maps[number] for number in numbers]

    def first_address(self, number: int) -> int:
        return int(self._maps[number][0, 0])


class _Results:
    """The results of the cores of one column, and their destinations."""

    def __init__(
        self, transfers: list[Descriptor], program: Program, to_rows: list[list[int]], to_column: list[int]
    ) -> None:
        core, micro = program.design.core, program.micro
        blocks = np.arange(core.m * core.n).reshape(core.m // micro.m, micro.m, core.n // micro.n, micro.n)
        in_core = blocks.transpose(0, 2, 1, 3).reshape(-1)
        self.order = in_core[_order(program.c, core.m * core.n)]
        """Indices in a core's (m, n), in the order in which the memory tile sends them."""
        self.destination = np.concatenate([np.empty(0, np.int32), *map(_addresses, transfers)])
        tiles = -(-self.destination.size // (len(to_rows) * max(self.order.size, 1)))
        if tiles > min(map(len, (*to_rows, to_column))):
            raise DeviceHang(f"{tiles} tiles of C are expected, but A and B arrived for fewer")
        self.pairs = [[(row[tile], to_column[tile]) for row in to_rows] for tile in range(tiles)]
        """By tile and core: the numbers of the panels of A and B that are multiplied."""

    def sources(self, places: Mapping[tuple[int, int], tuple[int, int]], n: int) -> Index:
        """The source of each element of `destination`; `places` has (start, row width) of each pair's product."""
        row, column = np.divmod(self.order, n)
        begin = np.array([[places[pair] for pair in tile] for tile in self.pairs]).reshape(-1, 2, 1)
        flat: Index = (begin[:, 0] + row * begin[:, 1] + column).reshape(-1)
        return flat[: self.destination.size]


class _Stack(NamedTuple):
    """Numbers of panels: each of `a` is multiplied by each of `b`."""

    a: tuple[int, ...]
    b: tuple[int, ...]


def _stacked(results: Iterable[_Results], a: _Panels, b: _Panels) -> list[_Stack]:
    """All pairs as few products, with panels in the order of their addresses."""
    partners: defaultdict[int, set[int]] = defaultdict(set)
    for left, right in (pair for result in results for tile in result.pairs for pair in tile):
        partners[left].add(right)
    by_partners: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for left in sorted(partners, key=a.first_address):
        by_partners[tuple(sorted(partners[left], key=b.first_address))].append(left)
    return [_Stack(tuple(lefts), rights) for rights, lefts in by_partners.items()]


def _gather(maps: list[Addresses], axis: int) -> Gather:
    joined = np.concatenate(maps, axis)
    flat = joined.reshape(-1)
    in_place = np.array_equal(flat, np.arange(flat.size))
    return Gather((joined.shape[0], joined.shape[1]), None if in_place else flat.astype(np.intp))


def _scatter(results: list[_Results], stacks: list[_Stack], core: Tile) -> Scatter | None:
    places: dict[tuple[int, int], tuple[int, int]] = {}
    start = 0
    for stack in stacks:
        width = len(stack.b) * core.n
        for i, left in enumerate(stack.a):
            places |= {
                (left, right): (start + i * core.m * width + j * core.n, width) for j, right in enumerate(stack.b)
            }
        start += len(stack.a) * core.m * width
    parts = [(result.sources(places, core.n), result.destination) for result in results if result.pairs]
    if not parts:
        return Scatter(np.empty(0, np.intp), np.empty(0, np.intp))
    if len(stacks) == 1 and all(np.array_equal(*part) for part in parts):
        reached = np.zeros(start, bool)
        for _, destination in parts:
            reached[destination] = True
        if reached.all():
            return None
    source, destination = (np.concatenate(side).astype(np.intp) for side in zip(*parts, strict=True))
    return Scatter(source, destination)
