"""The predicted time of launches on a device profile, from published figures. Nothing here is measured.

There are two models. A `CallProfile` adds the parts of a host call, one after the other, for every call. An
`ArrayProfile` is a roofline with a fixed cost for every launch and every change of design:

    device = launches * launch + changes * columns * switch + max(bytes moved / bandwidth, compute)
    bandwidth = min(the array's, columns * a column's)
    compute = (multiply-adds / a cycle's multiply-adds + row elements / a cycle's elements) / (cores * clock)

Bytes are those between DDR and the array, re-reads counted; multiply-adds include padding; row elements are those of
norms, softmax and activations. A product whose operands pass through the host adds the time in which the host fills and
reads buffers, reported separately. Units: seconds, bytes, bytes/s, multiply-adds, Hz.

Every figure names its source. Profiles are data (`profiles` and `seed`), and `published` has the measurements that the
fitted figures were fitted to. Does not know layers or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tilewhisper.kernels.base import UnsupportedShape
from tilewhisper.kernels.xdna.array import Device, Tile
from tilewhisper.kernels.xdna.row_plan import RowPlan
from tilewhisper.kernels.xdna.tile_plan import TilePlan

Basis = Literal["measured", "fitted", "derived", "claimed"]
"""Measured by the named source on its hardware; fitted to several measurements; derived by calculation; claimed without
a measurement shown."""


@dataclass(frozen=True)
class Figure:
    """A number and its source. This project measured none of them."""

    name: str
    value: float
    unit: Literal["s", "bytes/s", "multiply-adds", "elements", "Hz", "of a launch"]
    basis: Basis
    source: str


@dataclass(frozen=True)
class Cost:
    """Predicted seconds. `device` is overhead plus the parts of transfer and compute that do not overlap."""

    device: float
    host: float
    overhead: float
    transfer: float
    compute: float

    @property
    def seconds(self) -> float:
        return self.device + self.host

    @property
    def bound_by(self) -> str:
        parts = {name: getattr(self, name) for name in ("overhead", "transfer", "compute", "host")}
        return max(parts, key=parts.__getitem__)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.device + other.device,
            self.host + other.host,
            self.overhead + other.overhead,
            self.transfer + other.transfer,
            self.compute + other.compute,
        )


NO_COST = Cost(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Load:
    """The work of launches of one design, all of them together."""

    launches: int
    bytes_moved: int
    """Between DDR and the array."""
    multiply_adds: int
    """Padding included."""
    columns: int
    cores: int
    switches: int = 0
    """Changes to this design before them."""
    in_list: bool = False
    """Started together, as a run list of XRT."""
    row_elements: int = 0
    """Elements that go through a norm, a softmax or an activation."""


@dataclass(frozen=True)
class CallProfile:
    """A fixed time for every host call, its parts one after the other."""

    name: str
    summary: str
    device: Device
    setup: Figure
    transfer: Figure
    compute: Figure
    host: Figure
    compute_tile: Tile | None = None
    """The call that `compute` was timed on, if compute grows with a call's work; None if every call takes the same."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        return self.setup, self.transfer, self.compute, self.host

    def cost(self, plan: TilePlan, *, switches: int, resident: bool) -> Cost:
        """The cost of a plan, without switches and residency. Raises UnsupportedShape if it has no call tile."""
        if plan.geometry.call is None:
            raise UnsupportedShape(
                f"profile {self.name} times host calls of one tile on one core and does not cover "
                f"{plan.geometry.name}; use --device xdna1, xdna2-native or xdna2-bfp16, or a seed geometry"
            )
        work = plan.launch.multiply_adds / self.compute_tile.multiply_adds if self.compute_tile else 1.0
        overhead, transfer = plan.calls * self.setup.value, plan.calls * self.transfer.value
        compute, host = plan.calls * self.compute.value * work, plan.calls * self.host.value
        return Cost(overhead + transfer + compute, host, overhead, transfer, compute)


@dataclass(frozen=True)
class ArrayProfile:
    """An array that transfers and computes at the same time."""

    name: str
    summary: str
    device: Device
    launch: Figure
    listed_launch: Figure
    """A launch in a run list, as a share of one that the host starts alone."""
    switch: Figure
    """A change of design, for each column of the new one."""
    bandwidth: Figure
    column_bandwidth: Figure
    multiply_adds: Figure
    """Of one core in a cycle."""
    row_elements: Figure
    """Of one core in a cycle, in a norm, a softmax or an activation."""
    clock: Figure
    host_bandwidth: Figure

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (
            *(self.launch, self.listed_launch, self.switch, self.bandwidth, self.column_bandwidth),
            *(self.multiply_adds, self.row_elements, self.clock, self.host_bandwidth),
        )

    def device_cost(self, load: Load) -> Cost:
        """The cost of launches whose operands stay on the device."""
        launch = self.launch.value * (self.listed_launch.value if load.in_list else 1)
        overhead = load.launches * launch + load.switches * load.columns * self.switch.value
        transfer = load.bytes_moved / min(self.bandwidth.value, load.columns * self.column_bandwidth.value)
        cycles = load.multiply_adds / self.multiply_adds.value + load.row_elements / self.row_elements.value
        compute = cycles / (load.cores * self.clock.value)
        return Cost(overhead + max(transfer, compute), 0.0, overhead, transfer, compute)

    def host_cost(self, nbytes: int) -> Cost:
        """The cost of the host filling or reading so many bytes of buffers."""
        return Cost(0.0, nbytes / self.host_bandwidth.value, 0.0, 0.0, 0.0)

    def cost(self, plan: TilePlan, *, switches: int, resident: bool) -> Cost:
        """The cost of a product whose A and result, and B unless it is `resident`, pass through the host."""
        moved = plan.host_bytes_a + plan.host_bytes_c + (0 if resident else plan.host_bytes_b)
        return self.device_cost(load_of(plan, switches)) + self.host_cost(moved)


Profile = CallProfile | ArrayProfile


def load_of(plan: TilePlan | RowPlan, switches: int = 0) -> Load:
    """The work of a plan on the device, after so many changes of design."""
    columns, cores = plan.design.columns, plan.design.columns * plan.design.rows
    if isinstance(plan, RowPlan):
        elements = plan.rows * plan.design.width
        return Load(plan.calls, plan.bytes_moved, 0, columns, cores, switches, row_elements=elements)
    padded = plan.padded
    finished = 0 if plan.geometry.finish == "none" else padded.batch * padded.m * padded.n
    return Load(plan.calls, plan.bytes_moved, padded.multiply_adds, columns, cores, switches, row_elements=finished)


def loads_of_steps(steps: Sequence[Sequence[TilePlan | RowPlan]]) -> tuple[Load, ...]:
    """The work of a repeated sequence of steps. The launches of a step share a design and are started together."""
    loads = []
    for i, step in enumerate(steps):
        parts = [load_of(plan) for plan in step]
        loads.append(
            replace(
                parts[0],
                launches=sum(part.launches for part in parts),
                bytes_moved=sum(part.bytes_moved for part in parts),
                multiply_adds=sum(part.multiply_adds for part in parts),
                row_elements=sum(part.row_elements for part in parts),
                switches=int(step[0].design != steps[i - 1][0].design),
                in_list=len(parts) > 1,
            )
        )
    return tuple(loads)


def predict(plan: TilePlan, profile: Profile, *, switches: int = 0, resident: bool = True) -> Cost:
    """The cost of one product, after `switches` changes of design.

    `resident`: B is a weight and already on the device. A geometry with a call tile sends B with every call anyway.
    Raises UnsupportedShape.
    """
    per_tile = plan.geometry.call is not None
    return profile.cost(plan, switches=switches, resident=resident and not per_tile)


def design_switches(plans: Sequence[TilePlan]) -> tuple[int, ...]:
    """1 for each plan of a repeated sequence before which the device must change its design, else 0."""
    return tuple(int(plan.design != plans[i - 1].design) for i, plan in enumerate(plans))
