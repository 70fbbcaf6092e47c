"""Compile the micro-kernels of a design with Peano, and check the stack that they need against the design's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from npu_toolchain.running import ToolError
from npu_toolchain.stack_sizes import largest_frame
from npu_toolchain.tools import Tools

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.designs.structure import Function
from tilewhisper.kernels.xdna.microkernels import source

Produce = Callable[[Sequence[str], Path], None]
"""Run a command that writes a file."""

_TARGETS = {"xdna1": "aie2", "xdna2": "aie2p"}
"""Device -> the name of its cores in Peano."""
_WITHOUT_VITIS = "-D__AIE_API_AIE_ADF_HPP__"
"""The include guard of adf.h, which aie_api includes and only Vitis has."""


def compile_micro_kernels(
    functions: Iterable[Function], macros: Sequence[str], device: Device, tools: Tools, produce: Produce
) -> str | None:
    """Compile them to their object files, and return why their stack could not be checked, if so. Raises ToolError."""
    unchecked = None
    for function in functions:
        file = Path(function.object_file)
        produce(_command(function, macros, device, tools), file)
        needed = largest_frame(file.read_bytes())
        if needed is None:
            unchecked = (
                f"{file} does not state its stack, which is not checked: the design has {device.stack_bytes:,} bytes"
            )
        elif needed > device.stack_bytes:
            raise ToolError(
                f"the kernel {source(function.name).name} needs {needed:,} bytes of stack and the design reserves "
                f"{device.stack_bytes:,}; install a pair of build_kernels.py --pairs, or raise Device.stack_bytes in "
                "kernels/xdna/array.py"
            )
    return unchecked


def _command(function: Function, macros: Sequence[str], device: Device, tools: Tools) -> list[str]:
    return [
        *(str(tools.clang), f"--target={_TARGETS[device.name]}-none-unknown-elf"),
        *("-O2", "-std=c++20", "-DNDEBUG", _WITHOUT_VITIS, "-fstack-size-section", f"-I{tools.mlir_aie / 'include'}"),
        *macros,
        *("-c", str(source(function.name)), "-o", function.object_file),
    ]
