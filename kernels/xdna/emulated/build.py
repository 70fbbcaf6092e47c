"""The compiler of the emulated device: from plans to the folders of `artifacts`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tilewhisper.kernels.base import UnsupportedShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.emulated.container import pack
from tilewhisper.kernels.xdna.emulated.program import program_of
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan, encode, runtime_sequence
from tilewhisper.kernels.xdna.tile_plan import Design


def build(plans: Iterable[Plan], folder: Path) -> tuple[Path, ...]:
    """Write a folder under `folder` for each design of the plans, with the instructions of all their launches.

    Returns these folders. Raises UnsupportedShape for dtypes that the emulated datapath does not compute.
    """
    of_design: dict[AnyDesign, dict[str, Plan]] = {}
    for plan in plans:
        of_design.setdefault(plan.design, {})[plan.title] = plan
    return tuple(_build(design, launches, folder) for design, launches in of_design.items())


def _build(design: AnyDesign, launches: dict[str, Plan], folder: Path) -> Path:
    if isinstance(design, Design) and (design.dtype_in != "bf16" or design.dtype_out not in ("bf16", "f32")):
        raise UnsupportedShape(
            f"the emulated device computes bf16 -> bf16 or f32 only, not {design.dtype_in} -> {design.dtype_out}"
        )
    names = [operand.name for operand in design.operands]
    program = program_of(next(iter(launches.values())))
    return artifacts.write(
        folder,
        design,
        pack(program, artifacts.KERNEL),
        {title: encode(runtime_sequence(plan), names).tobytes() for title, plan in launches.items()},
        target="emulated",
        tools={"tilewhisper": version("tilewhisper")},
    )
