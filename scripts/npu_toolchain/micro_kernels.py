"""Compile mlir-aie's micro-kernels for a design, and check the stack that they need against the design's.

Until September 2026 mlir-aie kept a folder of kernels for each core architecture, with `zero_<type>` in the product's
file; since then one file serves both architectures, and `zero` has a file of its own, with its type and size as macros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from npu_toolchain.running import ToolError
from npu_toolchain.stack_sizes import largest_frame
from npu_toolchain.tools import Tools

from tilewhisper.kernels.xdna.designs.names import TYPES
from tilewhisper.kernels.xdna.designs.structure import MicroKernels
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.tile_plan import Design

Produce = Callable[[Sequence[str], Path], None]
"""Run a command that writes a file."""

_TARGETS = {"xdna1": "aie2", "xdna2": "aie2p"}
"""Device -> the name of its cores in Peano and in mlir-aie's older folders of kernels."""
_CPP_TYPES = {"f32": "float", "bf16": "bfloat16"}
_WITHOUT_VITIS = "-D__AIE_API_AIE_ADF_HPP__"
"""The include guard of adf.h, which the kernels' headers include and only Vitis has."""


@dataclass(frozen=True)
class Object:
    """An object file and what it is compiled from."""

    file: Path
    source: Path
    macros: tuple[str, ...]


def compile_micro_kernels(design: Design, kernels: MicroKernels, tools: Tools, produce: Produce) -> str | None:
    """Compile them, and return why their stack could not be checked, if so. Raises ToolError."""
    planned, unchecked = DEVICES[design.device].stack_bytes, None
    for item in _objects(design, kernels, tools):
        produce(_command(item, design, tools), item.file)
        needed = largest_frame(item.file.read_bytes())
        if needed is None:
            unchecked = f"{item.file} does not state its stack, which is not checked: the design has {planned:,} bytes"
        elif needed > planned:
            raise ToolError(
                f"the kernel {item.source.name} needs {needed:,} bytes of stack and the design reserves {planned:,}; "
                "install a pair of build_kernels.py --pairs, or raise Device.stack_bytes in kernels/xdna/array.py"
            )
    return unchecked


def _objects(design: Design, kernels: MicroKernels, tools: Tools) -> Iterator[Object]:
    core = design.core
    into, out = TYPES[design.dtype_in], TYPES[design.dtype_out]
    folder = tools.kernels
    product = folder / "linalg" if kernels.separate_zero else folder / _TARGETS[design.device]
    sizes = (f"-DDIM_M={core.m}", f"-DDIM_K={core.k}", f"-DDIM_N={core.n}", f"-D{into}_{out}_ONLY")
    yield Object(Path(kernels.product_file(core)), product / "mm.cc", sizes)
    if kernels.separate_zero:
        block = (f"-DZERO_TYPE={_CPP_TYPES[out]}", f"-DTILE_SIZE={core.m * core.n}")
        yield Object(Path(kernels.zero_file(core)), folder / "zero" / "zero.cc", block)


def _command(item: Object, design: Design, tools: Tools) -> list[str]:
    return [
        *(str(tools.clang), f"--target={_TARGETS[design.device]}-none-unknown-elf"),
        *("-O2", "-std=c++20", "-DNDEBUG", _WITHOUT_VITIS, "-fstack-size-section", f"-I{tools.mlir_aie / 'include'}"),
        *item.macros,
        *("-c", str(item.source), "-o", str(item.file)),
    ]
