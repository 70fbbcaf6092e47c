"""Write the NPU designs that a model's encoder needs, check them, and compile them if the mlir-aie tools are installed.

    python scripts/build_kernels.py --device xdna1 --model tiny.en
    python scripts/build_kernels.py --device xdna2 --model base --policy-sites all --compile -o kernels
    python scripts/build_kernels.py --device xdna1 --check --compile
    python scripts/build_kernels.py --pairs

Each design and launch gets an `.mlir` file: the linear layers, q, k and v as one product, and with `--policy-sites all`
the two products of the attention; `--policy-sites layers` writes those of whole layers instead, and `--check`
those of `tilewhisper npu-check`. Compiled designs and
their manifests go into the same folder, where the backend finds them; the log of each tool is in the design's folder
`build`. `--pairs` prints the versions of the tools that go together, with the commands that install them.

Exit status: 0 written and checked (and compiled, if the tools are installed), 2 an error, or `--compile` without the
tools.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from npu_toolchain.compiling import by_design, compile_design
from npu_toolchain.generations import GENERATIONS, generation_named
from npu_toolchain.launches import Launch, launches_of, launches_of_check, write
from npu_toolchain.pairs import PAIRS, why_unmatched
from npu_toolchain.running import ToolError
from npu_toolchain.tools import Tools, find_tools
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.tuning.planning import sites_of_model
from tilewhisper.kernels.base import UnknownTarget
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.devices import DEVICES, XRT_NAMES, device_called
from tilewhisper.kernels.xdna.geometries import geometry_names, unknown
from tilewhisper.kernels.xdna.probe import probe
from tilewhisper.models.checkpoint.catalog import ALIASES, SIZES

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if args.pairs:
        for pair in PAIRS:
            console.print(f"{pair.install}\n    Python {', '.join(pair.python)}; XRT {pair.xrt}; source: {pair.source}")
        return 0
    try:
        folder = args.output or _cache_folder()
        launches = _launches(args)
        tools, missing = _tools(args)
        spelling = (tools.generation if tools else generation_named(args.generation or GENERATIONS[0].name)).spelling
        for launch in _progress(launches, "designs"):
            write(launch, folder, spelling)
        if tools:
            for warning in _warnings(tools):
                _say(f"warning: {warning}")
            for design, served in _progress(list(by_design(launches).items()), "compiling"):
                if unchecked := compile_design(design, served, folder, tools):
                    _say(f"warning: {unchecked}")
    except (*USER_ERRORS, OSError) as e:
        _say(f"error: {e}")
        return 2
    console.print(_table(launches, compiled=tools is not None))
    designs = len(by_design(launches))
    console.print(f"{len(launches)} files, {designs} designs, in {folder}: written and checked as MLIR")
    if tools:
        console.print(f"compiled with mlir-aie {tools.versions['mlir_aie']}; not run on hardware by this script")
        return 0
    _say(f"{'error: ' if args.compile else ''}not compiled: {missing}")
    return 2 if args.compile else 0


def _launches(args: argparse.Namespace) -> tuple[Launch, ...]:
    if args.check:
        return launches_of_check(args.device)
    return launches_of(sites_of_model(args.model), args.policy_sites, args.device, args.geometry)


def _tools(args: argparse.Namespace) -> tuple[Tools | None, str]:
    """The tools, or None and the reason."""
    try:
        return find_tools(args.peano, args.generation), ""
    except ToolError as missing:
        return None, str(missing)


def _warnings(tools: Tools) -> Iterator[str]:
    if reason := why_unmatched(tools.versions):
        yield reason
    if problem := probe().pyxrt:
        yield f"the designs can be compiled here but not run: {problem}"


def _say(text: str) -> None:
    print(f"build_kernels: {text}", file=sys.stderr)


def _cache_folder() -> Path:
    from tilewhisper.kernels.xdna.opening import KERNELS_FOLDER

    return KERNELS_FOLDER


def _progress(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(items, description=description, console=console, transient=True, disable=not console.is_terminal)


def _table(launches: Sequence[Launch], *, compiled: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("design", "launch"):
        table.add_column(heading, overflow="fold")
    for heading in ("MLIR", "binary"):
        table.add_column(heading, no_wrap=True)
    table.add_column("sites")
    for launch in launches:
        design, size = launch.file.parent.name, launch.plan.title
        table.add_row(design, size, "checked", "compiled" if compiled else "none", ", ".join(launch.sites))
    return table


def _device(name: str) -> Device:
    if name in DEVICES:
        return DEVICES[name]
    try:
        return device_called(name)
    except UnknownTarget:
        message = unknown("device", "devices", name, (*DEVICES, *chain(*XRT_NAMES.values())))
        raise argparse.ArgumentTypeError(str(message)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--device", type=_device, metavar="NAME", help="xdna1, xdna2, or the device's name in XRT")
    task.add_argument("--pairs", action="store_true", help="print the versions of the tools that go together")
    parser.add_argument("--model", default="tiny.en", metavar="NAME", help=f"one of {', '.join([*SIZES, *ALIASES])}")
    parser.add_argument("--check", action="store_true", help="the designs of `tilewhisper npu-check`, not of a model")
    parser.add_argument("--geometry", default="whole-array", choices=geometry_names(), help="(default: whole-array)")
    parser.add_argument(
        "--policy-sites",
        default="linear",
        choices=("linear", "all", "layers"),
        help="linear: layers with weights, and q, k, v as one product (policies npu, hybrid); all: also the products "
        "of the attention (npu-full); layers: whole layers (npu-layer)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="(default: the folder that the backend reads)")
    parser.add_argument("--compile", action="store_true", help="fail if the tools to compile are missing")
    parser.add_argument(
        "--peano", type=Path, metavar="DIR", help="folder of the llvm-aie wheel (default: beside mlir_aie)"
    )
    parser.add_argument(
        "--generation",
        choices=[g.name for g in GENERATIONS],
        help="whose flags and operations the driver has: the first version of mlir-aie with them (default: found out; "
        "without the tools 1.3)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
