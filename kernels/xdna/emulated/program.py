"""The contents of a binary of the emulated device, and the device's failures. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.row_plan import RowDesign, RowPlan
from tilewhisper.kernels.xdna.sequence import Plan
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
class ProductProgram:
    """A binary that multiplies."""

    design: Design
    micro: Tile
    """(r, s, t) of the core's matrix instruction."""
    a: Layout
    b: Layout
    c: Layout


@dataclass(frozen=True)
class RowProgram:
    """A binary that computes a function of rows."""

    design: RowDesign


Program = ProductProgram | RowProgram


def program_of(plan: Plan) -> Program:
    """The program of the plan's design."""
    if isinstance(plan, RowPlan):
        return RowProgram(plan.design)
    return product_program_of(plan)


def product_program_of(plan: TilePlan) -> ProductProgram:
    at_memory = {t.operand: Layout(t.sizes, t.strides) for t in transfers(plan) if t.at == "memory tile"}
    micro = plan.device.micro_kernels[plan.geometry.dtype_in].tile
    return ProductProgram(plan.design, micro, at_memory["A"], at_memory["B"], at_memory["C"])
