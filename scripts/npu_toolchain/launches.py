"""The designs and launches that the encoder of a model needs, and their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.engine.routing.sites import Site
from tilewhisper.engine.tuning.planning import layer_shape
from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.spellings import Spelling
from tilewhisper.kernels.xdna.designs.structure import MicroKernels
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.layer_plan import plan_layer
from tilewhisper.kernels.xdna.npu_check.all_steps import plans_of_check
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan
from tilewhisper.kernels.xdna.tiling import plan

_FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Launch:
    """One design and one launch of it, with the sites or steps that it serves."""

    plan: Plan
    sites: tuple[str, ...]

    @property
    def file(self) -> Path:
        return Path(self.plan.design.name) / f"design_{self.plan.title}.mlir"


def launches_of_check(device: Device) -> tuple[Launch, ...]:
    """The designs and launches of `tilewhisper npu-check`."""
    return _distinct((f"npu-check: {step}", cut) for step, cut in plans_of_check(device))


def launches_of(sites: Sequence[Site], scope: str, device: Device, geometry: str) -> tuple[Launch, ...]:
    """The distinct designs and launches. Raises KernelError if the geometry does not support a product.

    `scope`: `linear`, `all` (also the attention's products), or `layers` (whole layers, which have their own geometry).
    """
    if scope == "layers":
        return _distinct(
            (step.name, each) for step in plan_layer(layer_shape(sites)[0], device).steps for each in step.launches
        )
    products = dict.fromkeys(_products(sites, scope))
    return _distinct((role, plan(shape, find_geometry(geometry, device), device)) for role, shape in products)


def _distinct(launches: Iterable[tuple[str, Plan]]) -> tuple[Launch, ...]:
    """Each launch once, with all that it serves."""
    found: dict[tuple[AnyDesign, str], tuple[Plan, list[str]]] = {}
    for role, each in launches:
        roles = found.setdefault((each.design, each.title), (each, []))[1]
        if role not in roles:
            roles.append(role)
    return tuple(Launch(each, tuple(roles)) for each, roles in found.values())


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


def write(launch: Launch, folder: Path, spelling: Spelling) -> None:
    """Generate, check and write the text of a launch. Raises DesignError."""
    text = mlir.generate(launch.plan, MicroKernels(work_folder(launch, folder)), spelling)
    mlir.check(text)
    path = folder / launch.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
