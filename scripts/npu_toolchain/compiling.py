"""Compile written designs with mlir-aie and Peano, and store them where the backend finds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from npu_toolchain.launches import Launch, work_folder
from npu_toolchain.micro_kernels import compile_micro_kernels
from npu_toolchain.running import ToolError, run
from npu_toolchain.tools import Tools

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.designs.configuration import structure_of
from tilewhisper.kernels.xdna.designs.structure import MicroKernels
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.microkernels import product_macros, row_macros
from tilewhisper.kernels.xdna.row_plan import RowDesign
from tilewhisper.kernels.xdna.sequence import AnyDesign


def by_design(launches: Iterable[Launch]) -> dict[AnyDesign, list[Launch]]:
    found: dict[AnyDesign, list[Launch]] = {}
    for launch in launches:
        found.setdefault(launch.plan.design, []).append(launch)
    return found


def compile_design(design: AnyDesign, served: Sequence[Launch], folder: Path, tools: Tools) -> str | None:
    """Compile a design's launches, whose texts are in `folder`, and return a warning. The manifest is written last.

    Raises ToolError.
    """
    work = work_folder(served[0], folder)
    work.mkdir(exist_ok=True)
    warning = compile_micro_kernels(
        structure_of(served[0].plan, MicroKernels(work)).functions,
        row_macros(design.width) if isinstance(design, RowDesign) else product_macros(design.core),
        DEVICES[design.device],
        tools,
        lambda command, file: _produce(command, work, file.stem, (file.name,), tools),
    )
    instructions = {launch.plan.title: _compile(folder / launch.file, work, tools) for launch in served}
    # M and N are in the instructions only, so the binary of the last launch serves all launches.
    xclbin = (work / artifacts.XCLBIN).read_bytes()
    instructions = _built_before(folder, design, tools) | instructions
    artifacts.write(folder, design, xclbin, instructions, target="hardware", tools=tools.versions)
    return warning


def _built_before(folder: Path, design: AnyDesign, tools: Tools) -> dict[str, bytes]:
    """Launches of the same design that the same tools compiled for another model."""
    home = folder / design.name
    try:
        manifest = artifacts.read_manifest(home, design)
    except BackendUnavailable:
        return {}
    if (manifest.design, manifest.target, manifest.tools) != (design, "hardware", tools.versions):
        return {}
    return {title: (home / name).read_bytes() for title, name in manifest.launches.items() if (home / name).is_file()}


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
