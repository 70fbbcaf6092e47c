"""The contents of a binary of the emulated device, and the device's failures. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.tile_plan import Design, TilePlan
from tilewhisper.kernels.xdna.transfers import transfers


class DeviceFault(Exception):  # noqa: N818 (reads as the fact it states)
    """The device stopped with an error."""


class DeviceHang(Exception):  # noqa: N818
    """The device waits forever."""


@dataclass(frozen=True)
class Layout:
    """The order in which a memory tile reads an object: sizes and strides in elements, outermost first."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """The contents of a binary."""

    design: Design
    micro: Tile
    """(r, s, t) of the core's matrix instruction."""
    a: Layout
    b: Layout
    c: Layout


def program_of(plan: TilePlan) -> Program:
    """The program of the plan's design."""
    at_memory = {t.operand: Layout(t.sizes, t.strides) for t in transfers(plan) if t.at == "memory tile"}
    micro = plan.device.micro_kernels[plan.geometry.dtype_in].tile
    return Program(plan.design, micro, at_memory["A"], at_memory["B"], at_memory["C"])
