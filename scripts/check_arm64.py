"""Prove the kernels for ARM64 on this machine, under emulation, and count the instructions of all inner loops.

    python scripts/check_arm64.py       # needs ziglang (pip), qemu-user-static and llvm (apt), and a C++ compiler

The kernels are compiled for Linux on ARM64, statically, with a program that compares every kernel of every instruction
set with the portable kernels and with sums of 64-bit integers (arm64/compare_sets.cpp). It runs on three processors of
qemu: with matrix products of bytes, with dot products, and with neither; the sets that each must offer are checked too.
The table has the instructions for each multiply-add, from the disassembly, beside those of this machine's compiler for
x86. qemu is no processor: it says nothing about speed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from arm64.inner_loops import inner_loops
from rich.table import Table

from tilewhisper.engine.commands.screen import console
from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build, compiler

PROCESSORS = {
    "max": ("neon_i8mm", "neon_dot", "neon", "portable"),
    "neoverse-n1": ("neon_dot", "neon", "portable"),
    "cortex-a57": ("neon", "portable"),
}
"""Of qemu, with the sets that each has, fastest first."""
ARM64, X86 = compiler.INSTRUCTION_SETS["aarch64"], compiler.INSTRUCTION_SETS["x86_64"]
ZIG = (sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl")
COMPARISON = Path(__file__).with_name("arm64") / "compare_sets.cpp"
OTHER_UNITS = (build.SOURCES / "instruction_sets.cpp", build.SOURCES / "processor.cpp", COMPARISON)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return run(Path(scratch))
    except (BackendUnavailable, OSError, ValueError) as e:
        print(f"check_arm64: error: {e}", file=sys.stderr)
    except subprocess.CalledProcessError as e:
        print(f"check_arm64: error: {' '.join(e.cmd)}\n{e.stdout}{e.stderr}", file=sys.stderr)
    return 2


def run(scratch: Path) -> int:
    qemu = next(filter(None, map(shutil.which, ("qemu-aarch64", "qemu-aarch64-static"))), None)
    if not qemu or not shutil.which("llvm-objdump"):
        raise BackendUnavailable("qemu-aarch64 and llvm-objdump are needed: apt install qemu-user-static llvm")
    program = _program(scratch)
    wrong = 0
    for processor, expected in PROCESSORS.items():
        done = subprocess.run([qemu, "-cpu", processor, str(program)], capture_output=True, text=True, check=False)
        print(f"qemu-aarch64 -cpu {processor}\n{done.stdout}{done.stderr}")
        compared = tuple(re.findall(r"^(\w+): equal, [1-9]\d* numbers", done.stdout, re.MULTILINE))
        if done.returncode or compared != expected:
            wrong += 1
            print(f"{processor} must end well with {', '.join(expected)}; its exit status is {done.returncode}")
    console().print(_table(scratch))
    return 1 if wrong else 0


def _program(scratch: Path) -> Path:
    """Compile and link the comparison with all kernels for ARM64."""
    defined = [f"-DTILEWHISPER_{name.upper()}" for name in ARM64]
    units: dict[Path, tuple[str, ...]] = dict.fromkeys((build.SOURCES / "isa_portable.cpp", *OTHER_UNITS), ())
    units |= {build.SOURCES / f"isa_{name}.cpp": _zig_flags(flags) for name, flags in ARM64.items()}
    objects = [_compiled((*ZIG, *flags, *defined), unit, scratch) for unit, flags in units.items()]
    program = scratch / "compare_sets"
    _run([*ZIG, "-static", *map(str, objects), "-o", str(program)])
    return program


def _zig_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    """zig names a processor's features after its name, and has no names for ARM's versions: armv8.2-a+dotprod."""
    return tuple(re.sub(r"^-march=armv[\d.]+-a", "-mcpu=generic", flag) for flag in flags)


def _compiled(command: tuple[str, ...], unit: Path, scratch: Path) -> Path:
    target = scratch / f"{unit.stem}.o"
    flags = [flag for flag in compiler.FLAGS if not flag.startswith("-D")]
    _run([*command, *flags, f"-I{build.SOURCES}", "-c", str(unit), "-o", str(target)])
    return target


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)


def _table(scratch: Path) -> Table:
    table = Table("set", "layout", "rows x columns", box=None, pad_edge=False)
    for heading in ("instructions", "multiplying", "on the stack", "multiply-adds", "instructions per multiply-add"):
        table.add_column(heading, justify="right")
    for name, unit in _units(scratch):
        for loop in inner_loops(unit):
            table.add_row(
                name,
                loop.layout,
                f"{loop.rows} x {loop.columns}",
                *map(str, (loop.instructions, loop.multiplying, loop.on_the_stack, loop.multiply_adds)),
                f"{loop.instructions / loop.multiply_adds:.3f}",
            )
            name = ""
        table.add_section()
    return table


def _units(scratch: Path) -> Iterator[tuple[str, Path]]:
    """The compiled units of the wide sets: ARM64's by zig, x86's by this machine's compiler."""
    for name in ARM64:
        yield name, scratch / f"isa_{name}.o"
    command = compiler.find_compiler().command
    for name, flags in X86.items():
        yield name, _compiled((*command, *flags), build.SOURCES / f"isa_{name}.cpp", scratch)


if __name__ == "__main__":
    sys.exit(main())
