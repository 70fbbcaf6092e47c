"""The designs and launches that the encoder of a model needs, and their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.engine.routing.sites import Site
from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.spellings import Spelling
from tilewhisper.kernels.xdna.designs.structure import MicroKernels
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.npu_check.steps import STEPS
from tilewhisper.kernels.xdna.tile_plan import Design, TilePlan
from tilewhisper.kernels.xdna.tiling import plan

_FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Launch:
    """One design and one padded M x N, with the sites it serves."""

    plan: TilePlan
    sites: tuple[str, ...]

    @property
    def mn(self) -> artifacts.MN:
        return self.plan.launch.m, self.plan.launch.n

    @property
    def file(self) -> Path:
        m, n = self.mn
        return Path(artifacts.folder_name(self.plan.design)) / f"design_{m}x{n}.mlir"


def launches_of_check(device: Device) -> tuple[Launch, ...]:
    """The designs and launches of `tilewhisper npu-check`."""
    return tuple(Launch(step.plan(device), (f"npu-check: {step.name}",)) for step in STEPS)


def launches_of(sites: Iterable[Site], scope: str, device: Device, geometry: str) -> tuple[Launch, ...]:
    """The distinct designs and launches. Raises KernelError if the geometry does not support a product."""
    found: dict[tuple[Design, artifacts.MN], tuple[TilePlan, list[str]]] = {}
    for role, shape in dict.fromkeys(_products(sites, scope)):
        cut = plan(shape, find_geometry(geometry, device), device)
        roles = found.setdefault((cut.design, (cut.launch.m, cut.launch.n)), (cut, []))[1]
        roles.append(role)
    return tuple(Launch(cut, tuple(roles)) for cut, roles in found.values())


def _products(sites: Iterable[Site], scope: str) -> Iterator[tuple[str, ProductShape]]:
    for site in sites:
        role = site.name.rpartition(".")[2]
        if site.kind == "linear" or (site.kind == "matmul" and scope == "all"):
            yield role, ProductShape(1, site.m, site.k, site.n)
        if role == _FUSED[0]:
            yield "q+k+v", ProductShape(1, site.m, site.k, len(_FUSED) * site.n)


def work_folder(launch: Launch, folder: Path) -> Path:
    """The folder of the object files and logs of a launch's design."""
    return (folder / launch.file).parent.resolve() / "build"


def write(launch: Launch, folder: Path, spelling: Spelling, *, separate_zero: bool) -> None:
    """Generate, check and write the text of a launch. Raises DesignError."""
    text = mlir.generate(launch.plan, MicroKernels(work_folder(launch, folder), separate_zero), spelling)
    mlir.check(text)
    path = folder / launch.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
