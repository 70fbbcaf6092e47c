"""Compile written designs with mlir-aie and Peano, and store them where the backend finds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from npu_toolchain.launches import Launch
from npu_toolchain.running import ToolError, run
from npu_toolchain.tools import KERNELS, Tools

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.designs.names import TYPES
from tilewhisper.kernels.xdna.tile_plan import Design

_TARGETS = {"xdna1": "aie2", "xdna2": "aie2p"}
"""Device -> the name of its cores in Peano and in mlir-aie's folder of kernels."""
_WITHOUT_VITIS = "-D__AIE_API_AIE_ADF_HPP__"
"""The include guard of adf.h, which the kernels' headers include and only Vitis has."""


def by_design(launches: Iterable[Launch]) -> dict[Design, list[Launch]]:
    found: dict[Design, list[Launch]] = {}
    for launch in launches:
        found.setdefault(launch.plan.design, []).append(launch)
    return found


def compile_design(design: Design, served: Sequence[Launch], folder: Path, tools: Tools) -> None:
    """Compile a design's launches, whose texts are in `folder`. The manifest is written last. Raises ToolError."""
    work = (folder / served[0].file).parent.resolve() / "build"
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
    target, core = _TARGETS[design.device], design.core
    include = tools.mlir_aie / "include"
    command = [
        *(str(tools.clang), f"--target={target}-none-unknown-elf"),
        *("-O2", "-std=c++20", "-DNDEBUG", _WITHOUT_VITIS, f"-I{include}"),
        *(f"-DDIM_M={core.m}", f"-DDIM_K={core.k}", f"-DDIM_N={core.n}"),
        f"-D{TYPES[design.dtype_in]}_{TYPES[design.dtype_out]}_ONLY",
        *("-c", str(tools.mlir_aie / KERNELS / target / "mm.cc"), "-o", f"mm_{core}.o"),
    ]
    _produce(command, work, f"mm_{core}", (f"mm_{core}.o",), tools)


def _compile(text: Path, work: Path, tools: Tools) -> bytes:
    """The instructions of one launch; the binary stays in `work`."""
    instructions = f"{text.stem}.bin"
    arguments = tools.generation.arguments(
        text.resolve(), tools.peano, work / f"{text.stem}.prj", artifacts.XCLBIN, instructions
    )
    _produce([*tools.driver, *arguments], work, text.stem, (artifacts.XCLBIN, instructions), tools)
    return (work / instructions).read_bytes()


def _produce(command: Sequence[str], work: Path, title: str, files: Sequence[str], tools: Tools) -> None:
    """Run a command that writes `files` in `work`; files of an earlier run are deleted first."""
    for name in files:
        (work / name).unlink(missing_ok=True)
    log = work / f"{title}.log"
    run(command, work, log, tools.environment)
    for name in files:
        if not (work / name).is_file():
            raise ToolError(f"{Path(command[0]).name} reported success and wrote no {name}; the full log is {log}")
