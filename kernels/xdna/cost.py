"""The predicted time of a `TilePlan` on a device profile, from published figures. Nothing here is measured.

There are two models. A `CallProfile` adds the parts of a host call, one after the other, for every call. An
`ArrayProfile` is

    device = calls * launch + switches * switch + max(bytes moved / bandwidth, 2 * padded multiply-adds / rate)

for the whole array; a geometry on some of its cores and columns gets that share of the rate and the bandwidth. The time
in which the host fills and reads buffers is added and reported separately. Units: seconds, bytes, bytes/s, operations/s
(a multiply-add is two).

Every figure names its source. Profiles are data (`profiles` and `seed`). Does not know layers or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tilewhisper.kernels.base import UnsupportedShape
from tilewhisper.kernels.xdna.array import Device, Tile
from tilewhisper.kernels.xdna.tile_plan import TilePlan

Basis = Literal["measured", "derived", "claimed"]
"""Measured by the named source on its hardware; derived by calculation or fit; claimed without a measurement shown."""


@dataclass(frozen=True)
class Figure:
    """A number and its source. This project measured none of them."""

    name: str
    value: float
    unit: Literal["s", "bytes/s", "operations/s"]
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
                f"{plan.geometry.name}; use --device xdna1 or xdna2, or a seed geometry"
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
    switch: Figure
    bandwidth: Figure
    rate: Figure
    host_bandwidth: Figure

    @property
    def figures(self) -> tuple[Figure, ...]:
        return self.launch, self.switch, self.bandwidth, self.rate, self.host_bandwidth

    def cost(self, plan: TilePlan, *, switches: int, resident: bool) -> Cost:
        columns, cores = plan.geometry.columns / self.device.columns, plan.geometry.cores / self.device.cores
        overhead = plan.calls * self.launch.value + switches * self.switch.value
        transfer = plan.bytes_moved / (self.bandwidth.value * columns)
        compute = 2 * plan.padded.multiply_adds / (self.rate.value * cores)
        filled = plan.host_bytes_a + plan.host_bytes_c + (0 if resident else plan.host_bytes_b)
        host = filled / self.host_bandwidth.value
        return Cost(overhead + max(transfer, compute), host, overhead, transfer, compute)


Profile = CallProfile | ArrayProfile


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
