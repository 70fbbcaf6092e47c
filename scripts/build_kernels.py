"""Write the NPU designs that a model's encoder needs, check them, and compile them if the mlir-aie tools are installed.

    python scripts/build_kernels.py --device xdna1 --model tiny.en
    python scripts/build_kernels.py --device xdna2 --model base --policy-sites all --compile -o kernels

Each design and launch gets an `.mlir` file: the linear layers, q, k and v as one product, and with `--policy-sites all`
the two products of the attention. Compiled designs and their manifests go into the same folder, where the backend finds
them. Exit status: 0 written and checked (and compiled, if the tools are installed), 2 an error, or `--compile` without
the tools.
"""

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.routing.sites import Site
from tilewhisper.engine.tuning.planning import sites_of_model
from tilewhisper.kernels.base import BackendUnavailable, KernelError, ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.names import TYPES
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.geometries import find_geometry, geometry_names
from tilewhisper.kernels.xdna.tile_plan import Design, TilePlan
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import available_models

T = TypeVar("T")

FUSED = ("q_proj", "k_proj", "v_proj")
TARGETS = {"xdna1": "aie2", "xdna2": "aie2p"}
"""Device -> the name of its cores in Peano and in mlir-aie's folder of kernels."""
KERNEL_SOURCES = Path("include/aie_kernels")
"""In the mlir_aie wheel."""
TIMEOUT = 1800
"""Seconds, for one run of a compiler."""


class ToolError(KernelError):
    """A compiler is missing or failed."""


@dataclass(frozen=True)
class Tools:
    """The mlir-aie wheel and the Peano wheel (llvm-aie), a pair of matching versions."""

    aiecc: Path
    mlir_aie: Path
    peano: Path

    @property
    def versions(self) -> dict[str, str]:
        return {name: _version(name) for name in ("mlir_aie", "llvm-aie", "tilewhisper")}


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


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        folder = args.output or _cache_folder()
        launches = launches_of(sites_of_model(args.model), args.policy_sites, args.device, args.geometry)
        write(launches, folder)
        tools, missing = find_tools(args.peano)
        if tools:
            compile_all(launches, folder, tools)
    except (*USER_ERRORS, OSError) as e:
        print(f"build_kernels: error: {e}", file=sys.stderr)
        return 2
    console.print(_table(launches, compiled=tools is not None))
    designs = len({launch.plan.design for launch in launches})
    console.print(f"{len(launches)} files, {designs} designs, in {folder}: written and checked as MLIR")
    if tools:
        console.print("compiled; not run on hardware by this script")
        return 0
    print(f"build_kernels: {'error: ' if args.compile else ''}not compiled: {missing}", file=sys.stderr)
    return 2 if args.compile else 0


def launches_of(sites: Iterable[Site], scope: str, device: str, geometry: str) -> tuple[Launch, ...]:
    """The distinct designs and launches. Raises KernelError if the geometry does not support a product."""
    found: dict[tuple[Design, artifacts.MN], tuple[TilePlan, list[str]]] = {}
    target = DEVICES[device]
    for role, shape in dict.fromkeys(_products(sites, scope)):
        cut = plan(shape, find_geometry(geometry, target), target)
        roles = found.setdefault((cut.design, (cut.launch.m, cut.launch.n)), (cut, []))[1]
        roles.append(role)
    return tuple(Launch(cut, tuple(roles)) for cut, roles in found.values())


def _products(sites: Iterable[Site], scope: str) -> Iterator[tuple[str, ProductShape]]:
    for site in sites:
        role = site.name.rpartition(".")[2]
        if site.kind == "linear" or (site.kind == "matmul" and scope == "all"):
            yield role, ProductShape(1, site.m, site.k, site.n)
        if role == FUSED[0]:
            yield "q+k+v", ProductShape(1, site.m, site.k, len(FUSED) * site.n)


def write(launches: Sequence[Launch], folder: Path) -> None:
    """Generate, check and write the text of each launch. Raises DesignError."""
    for launch in _progress(launches, "designs"):
        text = mlir.generate(launch.plan)
        mlir.check(text)
        path = folder / launch.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def find_tools(peano: Path | None) -> tuple[Tools | None, str]:
    """The tools, or None and the reason with the packages to install."""
    packages = Path(sysconfig.get_path("purelib"))
    wheels = (
        "the wheels mlir_aie and llvm-aie (Peano), a pair of matching versions, from the GitHub releases of "
        "Xilinx/mlir-aie and Xilinx/llvm-aie (see docs/npu.md)"
    )
    found = shutil.which("aiecc.py")
    if not found:
        return None, f"aiecc.py is not on PATH; install {wheels}"
    # The wheel's own bin folder, or the environment's.
    aiecc = Path(found).resolve()
    mlir_aie = next((f for f in (aiecc.parents[1], packages / "mlir_aie") if (f / KERNEL_SOURCES).is_dir()), None)
    if not mlir_aie:
        return None, f"there is no {KERNEL_SOURCES} beside {aiecc}; install {wheels}"
    peano = peano or packages / "llvm-aie"
    if not (peano / "bin" / "clang++").exists():
        return None, f"there is no Peano compiler in {peano}; give its folder with --peano, or install {wheels}"
    return Tools(aiecc, mlir_aie, peano.resolve()), ""


def compile_all(launches: Sequence[Launch], folder: Path, tools: Tools) -> None:
    """Compile all launches. A design's manifest is written after its last launch. Raises ToolError."""
    of_design: dict[Design, list[Launch]] = {}
    for launch in launches:
        of_design.setdefault(launch.plan.design, []).append(launch)
    for design, served in _progress(list(of_design.items()), "compiling"):
        work = (folder / served[0].file).parent / "build"
        work.mkdir(exist_ok=True)
        _compile_micro_kernel(design, work, tools)
        instructions = {launch.mn: _compile(folder / launch.file, work, tools) for launch in served}
        # M and N are in the instructions only, so the binary of the last launch serves all launches.
        xclbin = (work / artifacts.XCLBIN).read_bytes()
        instructions = _built_before(folder, design, tools) | instructions
        artifacts.write(folder, design, xclbin, instructions, target="hardware", tools=tools.versions)


def _built_before(folder: Path, design: Design, tools: Tools) -> dict[artifacts.MN, bytes]:
    """Launches of the same design that the same tools compiled for another model."""
    home = folder / artifacts.folder_name(design)
    try:
        manifest = artifacts.read_manifest(home, design)
    except BackendUnavailable:
        return {}
    if (manifest.design, manifest.target, manifest.tools) != (design, "hardware", tools.versions):
        return {}
    return {mn: (home / name).read_bytes() for mn, name in manifest.launches.items() if (home / name).is_file()}


def _compile_micro_kernel(design: Design, work: Path, tools: Tools) -> None:
    """mlir-aie's own matrix kernel for this core tile and these dtypes."""
    target, core = TARGETS[design.device], design.core
    include = tools.mlir_aie / "include"
    _run(
        [
            str(tools.peano / "bin" / "clang++"),
            *(f"--target={target}-none-unknown-elf", "-O2", "-std=c++20", "-DNDEBUG", f"-I{include}"),
            *(f"-DDIM_M={core.m}", f"-DDIM_K={core.k}", f"-DDIM_N={core.n}"),
            f"-D{TYPES[design.dtype_in]}_{TYPES[design.dtype_out]}_ONLY",
            *("-c", str(tools.mlir_aie / KERNEL_SOURCES / target / "mm.cc"), "-o", f"mm_{core}.o"),
        ],
        work,
    )


def _compile(text: Path, work: Path, tools: Tools) -> bytes:
    """The instructions of one launch; the binary stays in `work`."""
    instructions = work / f"{text.stem}.bin"
    _run(
        [
            *(sys.executable, str(tools.aiecc), "--no-xchesscc", "--no-xbridge", "--peano", str(tools.peano)),
            *("--aie-generate-xclbin", f"--xclbin-name={artifacts.XCLBIN}"),
            *("--aie-generate-npu-insts", f"--npu-insts-name={instructions.name}", str(text.resolve())),
        ],
        work,
    )
    return instructions.read_bytes()


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as slow:
        raise ToolError(f"{Path(command[0]).name} took longer than {TIMEOUT} s in {folder}") from slow
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise ToolError(f"{' '.join(command[:2])} failed in {folder}: {last[0]}")


def _cache_folder() -> Path:
    from tilewhisper.kernels.xdna.backend import KERNELS_FOLDER  # imported late because it imports torch

    return KERNELS_FOLDER


def _progress(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(items, description=description, console=console, transient=True, disable=not console.is_terminal)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _table(launches: Sequence[Launch], *, compiled: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("design", "M x N", "MLIR", "binary"):
        table.add_column(heading, no_wrap=True)
    table.add_column("sites")
    for launch in launches:
        design, size = launch.file.parent.name, "x".join(map(str, launch.mn))
        table.add_row(design, size, "checked", "compiled" if compiled else "none", ", ".join(launch.sites))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True, choices=DEVICES)
    parser.add_argument("--model", default="tiny.en", metavar="NAME", help=f"one of {', '.join(available_models())}")
    parser.add_argument("--geometry", default="whole-array", choices=geometry_names(), help="(default: whole-array)")
    parser.add_argument(
        "--policy-sites",
        default="linear",
        choices=("linear", "all"),
        help="linear: layers with weights, and q, k, v as one product; all: also the products of the attention",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="(default: the folder that the backend reads)")
    parser.add_argument("--compile", action="store_true", help="fail if the tools to compile are missing")
    parser.add_argument(
        "--peano", type=Path, metavar="DIR", help="folder of the llvm-aie wheel (default: beside pip's)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
