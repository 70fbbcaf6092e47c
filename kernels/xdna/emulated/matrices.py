"""The core program of a product on whole matrices: the panels of a launch as few large products.

Data that the array reads repeatedly is multiplied once: panels of A that are multiplied by the same panels of B are
stacked into one product. A correct design becomes one product of the buffers in memory order, and then no map is
needed. The blocks (r, s, t) of the matrix instruction are taken apart here, so that a wrong layout of a memory tile
gives a wrong product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.emulated.panels import ColumnResults, ProductRoute
from tilewhisper.kernels.xdna.emulated.program import ProductProgram
from tilewhisper.kernels.xdna.emulated.streams import Addresses

Index = npt.NDArray[np.intp]


class Gather(NamedTuple):
    """A matrix in a buffer."""

    shape: tuple[int, int]
    addresses: Index | None
    """Row by row; None if the matrix is the beginning of the buffer in memory order."""

    def read(self, buffer: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        rows, columns = self.shape
        flat = buffer[: rows * columns] if self.addresses is None else buffer[self.addresses]
        return flat.reshape(self.shape)


class Group(NamedTuple):
    """Stacked panels of A and the panels of B, side by side, that each is multiplied by: one product."""

    a: Gather
    b: Gather


class Scatter(NamedTuple):
    """Where results go; `source` indexes the products of the groups, concatenated row by row."""

    source: Index
    destination: Index


class Matrices(NamedTuple):
    """The reads, products and writes of one launch."""

    groups: tuple[Group, ...]
    scatter: Scatter | None
    """None if the only product is C in memory order."""


class _Stack(NamedTuple):
    """Numbers of panels: each of `a` is multiplied by each of `b`."""

    a: tuple[int, ...]
    b: tuple[int, ...]


def matrices_of(program: ProductProgram, route: ProductRoute) -> Matrices:
    """A launch's products."""
    stacks = _stacked(route)
    groups = tuple(
        Group(
            _gather([_a_rows(route.a[number], program) for number in stack.a], axis=0),
            _gather([_b_rows(route.b[number], program) for number in stack.b], axis=1),
        )
        for stack in stacks
    )
    return Matrices(groups, _scatter(route.columns, stacks, program))


def _a_rows(panel: Addresses, program: ProductProgram) -> Addresses:
    """(steps, m * k) in blocks of (r, s) -> (m, K)."""
    core, r, s = program.design.core, program.micro.m, program.micro.k
    blocks = panel.reshape(-1, core.m // r, core.k // s, r, s)
    return blocks.transpose(1, 3, 0, 2, 4).reshape(core.m, -1)


def _b_rows(panel: Addresses, program: ProductProgram) -> Addresses:
    """(steps, k * n) in blocks of (s, t), or (t, s) if B is stored by columns -> (K, n)."""
    core, s, t = program.design.core, program.micro.k, program.micro.n
    if program.design.b_by_columns:
        blocks = panel.reshape(-1, core.k // s, core.n // t, t, s).transpose(0, 1, 4, 2, 3)
    else:
        blocks = panel.reshape(-1, core.k // s, core.n // t, s, t).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(-1, core.n)


def _c_elements(core: Tile, micro: Tile) -> Index:
    """The place in (m, n) of each element of a core's C, which is in blocks of (r, t)."""
    blocks = np.arange(core.m * core.n).reshape(core.m // micro.m, micro.m, core.n // micro.n, micro.n)
    return blocks.transpose(0, 2, 1, 3).reshape(-1)


def _stacked(route: ProductRoute) -> list[_Stack]:
    """All pairs as few products, with panels in the order of their addresses."""
    partners: defaultdict[int, set[int]] = defaultdict(set)
    for left, right in (pair for column in route.columns for tile in column.pairs for pair in tile):
        partners[left].add(right)
    by_partners: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for left in sorted(partners, key=lambda number: int(route.a[number].flat[0])):
        rights = sorted(partners[left], key=lambda number: int(route.b[number].flat[0]))
        by_partners[tuple(rights)].append(left)
    return [_Stack(tuple(lefts), rights) for rights, lefts in by_partners.items()]


def _gather(maps: list[Addresses], axis: int) -> Gather:
    whole = np.concatenate(maps, axis)
    flat = whole.reshape(-1)
    in_place = np.array_equal(flat, np.arange(flat.size))
    return Gather((whole.shape[0], whole.shape[1]), None if in_place else flat.astype(np.intp))


def _scatter(columns: Iterable[ColumnResults], stacks: list[_Stack], program: ProductProgram) -> Scatter | None:
    core = program.design.core
    places: dict[tuple[int, int], tuple[int, int]] = {}
    start = 0
    for stack in stacks:
        width = len(stack.b) * core.n
        for i, left in enumerate(stack.a):
            places |= {
                (left, right): (start + i * core.m * width + j * core.n, width) for j, right in enumerate(stack.b)
            }
        start += len(stack.a) * core.m * width
    elements = _c_elements(core, program.micro)
    parts = [(_sources(each, elements, places, core.n), each.destination) for each in columns if each.pairs]
    if not parts:
        return Scatter(np.empty(0, np.intp), np.empty(0, np.intp))
    if len(stacks) == 1 and all(np.array_equal(*part) for part in parts):
        reached = np.zeros(start, bool)
        for _, destination in parts:
            reached[destination] = True
        if reached.all():
            return None
    sources, destinations = zip(*parts, strict=True)
    return Scatter(np.concatenate(sources).astype(np.intp), np.concatenate(destinations).astype(np.intp))


def _sources(
    column: ColumnResults, elements: Index, places: Mapping[tuple[int, int], tuple[int, int]], n: int
) -> Index:
    """The source of each element of `destination`; `places` has (start, row width) of each pair's product."""
    row, offset = np.divmod(elements[column.order], n)
    begin = np.array([[places[pair] for pair in tile] for tile in column.pairs]).reshape(-1, 2, 1)
    flat: Index = (begin[:, 0] + row * begin[:, 1] + offset).reshape(-1)
    return flat[: column.destination.size]
