"""The kernel calls that the host makes for a `TilePlan`, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

from tilewhisper.kernels.xdna.tile_plan import TilePlan


@dataclass(frozen=True)
class HostCall:
    """The place of one call in the grid. Calls of the same output tile are consecutive and summed over `depth`."""

    batch: int
    row: int
    column: int
    depth: int


def host_calls(plan: TilePlan) -> Iterator[HostCall]:
    """Every call the host makes, in order."""
    grid = plan.grid
    order = product(range(plan.shape.batch), range(grid.rows), range(grid.columns), range(grid.depth))
    return (HostCall(*place) for place in order)


def grouped_calls(plan: TilePlan, size: int) -> Iterator[tuple[HostCall, ...]]:
    """The same calls in groups of `size`: grouping in Python reorders calls and saves none."""
    calls = host_calls(plan)
    while group := tuple(islice(calls, size)):
        yield group
