"""Find a C++ compiler, and compile a folder of sources into one library of torch operators.

Sources are compiled against torch's stable ABI, and never with `-march=native`: each instruction set is a unit of its
own with its own flags, `isa_<name>.cpp`, and the library chooses one at run time, so that it works on any processor of
its architecture. Units of other architectures are left out; the other units see `TILEWHISPER_<NAME>` for each that is
included.

This module has no cache, and does not import torch.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu.targets import SUFFIXES, Target, this_target

COMPILERS = () if sys.platform == "win32" else ("g++", "clang++", "c++")
"""Those for Windows that have these names may need libraries that are not there when the kernels are loaded."""
HOW_TO_INSTALL = "`pip install 'tilewhisper[compiler]'` brings one" + " (or `apt install g++`)" * (
    sys.platform == "linux"
)

FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-DTORCH_TARGET_VERSION=0x020d000000000000")
"""For every unit. The version is 2.13, the oldest torch whose stable ABI the sources may use."""

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_X86 = {
    "avx2": _AVX2,
    "avx_vnni": (*_AVX2, "-mavxvnni"),
    "avx512": (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vnni"))),
}
_ARM64 = {"neon": (), "neon_dot": ("-march=armv8.2-a+dotprod",), "neon_i8mm": ("-march=armv8.2-a+dotprod+i8mm",)}
INSTRUCTION_SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": _X86,
    "AMD64": _X86,
    "aarch64": _ARM64,
    "arm64": _ARM64,
    "ARM64": _ARM64,
}
"""Flags of the units beyond the portable one, by `platform.machine()`."""

TIMEOUT = 600
"""Seconds of one run of the compiler, so that other processes do not wait for ever."""


class CompileError(Exception):
    """The compiler failed. `log` is all of its output."""

    def __init__(self, first: str, log: str) -> None:
        super().__init__(first)
        self.log = log


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    """The full path of the program, and its arguments: `CXX` may be "ccache g++"."""
    version: str
    """The first line of what it says of its version."""
    zig_for: Target | None = None
    """The target that zig compiles for; None for other compilers, which compile for this machine."""

    @property
    def system(self) -> str:
        """Of the library, as `sys.platform`."""
        return self.zig_for.system if self.zig_for else sys.platform

    def flags(self, flags: Iterable[str]) -> tuple[str, ...]:
        """Flags of gcc and clang in this compiler's words."""
        return self.zig_for.zig_flags(flags) if self.zig_for else tuple(flags)

    def __str__(self) -> str:
        return f"{shlex.join(self.command)} ({self.version})"


def find_compiler() -> Compiler:
    """The compiler in `CXX`, else the first of COMPILERS on PATH, else zig's. Raises BackendUnavailable.

    `CXX` is not a setting of this library: builds of all kinds read this machine's compiler from it.
    """
    if named := shlex.split(os.environ.get("CXX", ""), posix=os.name == "posix"):
        if program := shutil.which(named[0]):
            return Compiler((program, *named[1:]), _ask_version(program, *named[1:], "--version"))
        raise BackendUnavailable(f"the C++ compiler {named[0]!r} in CXX was not found; correct CXX or unset it")
    if program := next(filter(None, map(shutil.which, COMPILERS)), None):
        return Compiler((program,), _ask_version(program, "--version"))
    target = this_target()
    if target and importlib.util.find_spec("ziglang"):
        return zig_compiler(target)
    missing = f"none of {', '.join(COMPILERS)} is on PATH" if COMPILERS else "ziglang is not installed"
    raise BackendUnavailable(f"no C++ compiler: {missing}; {HOW_TO_INSTALL}")


def zig_compiler(target: Target) -> Compiler:
    """The compiler of the package ziglang. Raises BackendUnavailable.

    Without a processor of the target it would use every instruction of this machine.
    """
    zig = (sys.executable, "-m", "ziglang")
    command = (*zig, "c++", "-target", target.zig, f"-mcpu={target.processor}")
    # Not `c++ --version`: for macOS it leaves an empty a.o in the current folder.
    return Compiler(command, f"zig {_ask_version(*zig, 'version')}", target)


@functools.cache
def _ask_version(*command: str) -> str:
    try:
        said = run(command)
    except CompileError as e:
        raise BackendUnavailable(f"the C++ compiler {shlex.join(command[:-1])} does not work: {e}") from e
    return said.partition("\n")[0].strip()


def unit_flags(
    sources: Path, machine: str | None = None, other_flags: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> dict[Path, tuple[str, ...]]:
    """The units (.cpp) for an architecture, each with the flags that are not in FLAGS; None means this machine's.

    `other_flags` of an instruction set replace those in INSTRUCTION_SETS.
    """
    sets = {"portable": (), **INSTRUCTION_SETS.get(machine or platform.machine(), {}), **other_flags}
    defined = tuple(f"-DTILEWHISPER_{name.upper()}" for name in sets if (sources / f"isa_{name}.cpp").is_file())
    flags: dict[Path, tuple[str, ...]] = {}
    for unit in sorted(sources.glob("*.cpp")):
        kind, _, name = unit.stem.partition("_")
        if kind != "isa":
            flags[unit] = defined
        elif name in sets:
            flags[unit] = sets[name]
    return flags


def compile_library(
    compiler: Compiler, unit_flags: Mapping[Path, tuple[str, ...]], extra_flags: Sequence[str], scratch: Path
) -> Path:
    """Compile units with their flags to one shared library in the folder `scratch`. Raises CompileError."""
    units = units_with_torch(unit_flags, extra_flags)
    return compile_units(compiler, units, extra_flags, _link_with_torch(compiler), scratch)


def units_with_torch(
    unit_flags: Mapping[Path, tuple[str, ...]], extra_flags: Sequence[str]
) -> dict[Path, tuple[str, ...]]:
    """Units with all their flags.

    Messages in the library name sources without their folder, so that equal sources make equal libraries in any folder.
    """
    torch = _torch_folder()
    folders = {torch: "torch", **{unit.parent: "." for unit in unit_flags}}
    names = tuple(f"-ffile-prefix-map={folder}={name}" for folder, name in folders.items())
    return {
        unit: (*FLAGS, *flags, *extra_flags, *names, f"-isystem{torch / 'include'}")
        for unit, flags in unit_flags.items()
    }


def _link_with_torch(compiler: Compiler) -> tuple[str, ...]:
    """Linker flags. torch's own libraries are loaded before this one, so it needs no path to them."""
    folder = _torch_folder() / "lib"
    if compiler.system == "win32":
        return (str(folder / "torch_cpu.lib"),)
    return (f"-L{folder}", "-ltorch_cpu")


def compile_units(
    compiler: Compiler,
    units: Mapping[Path, tuple[str, ...]],
    linker_flags: Sequence[str],
    libraries: Sequence[str],
    scratch: Path,
) -> Path:
    """Compile units with their flags to one shared library in the folder `scratch`. Raises CompileError."""
    parts = compile_objects(compiler, units, scratch)
    library = scratch / f"library{SUFFIXES.get(compiler.system, '.so')}"
    run([*compiler.command, "-shared", *linker_flags, *map(str, parts), *libraries, "-o", str(library)])
    return library


def compile_objects(compiler: Compiler, units: Mapping[Path, tuple[str, ...]], scratch: Path) -> list[Path]:
    """Compile units with their flags, each to a file in the folder `scratch`. Raises CompileError."""

    def compile_unit(item: tuple[Path, tuple[str, ...]]) -> Path:
        unit, flags = item
        target = scratch / f"{unit.stem}.o"
        run([*compiler.command, *compiler.flags(flags), "-c", str(unit), "-o", str(target)])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_unit, units.items()))


@functools.cache
def this_processor(compiler: Compiler) -> str:
    """What the compiler defines for this machine's processor: equal where -march=native means the same."""
    return run([*compiler.command, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])


def _torch_folder() -> Path:
    """The folder of the installed torch, found without the 2 s of its import."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable("torch is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def run(command: Sequence[str]) -> str:
    """Run a compiler or linker. Returns its output, of both streams. Raises CompileError."""
    try:
        # In English, whatever the user's language: `_first_error` searches for "error:".
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, env=environment, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise CompileError(f"{command[0]} took longer than {TIMEOUT} s", shlex.join(command)) from e
    except OSError as e:
        raise CompileError(f"{command[0]} cannot be run: {e.strerror}", shlex.join(command)) from e
    said = done.stdout + done.stderr
    if done.returncode:
        raise CompileError(_first_error(said), f"{shlex.join(command)}\n{said}")
    return said


def _first_error(said: str) -> str:
    """The line to show: the first error of the compiler or linker, without its context."""
    lines = said.strip().splitlines() or ["the compiler printed nothing"]
    return next((line for line in lines if "error:" in line or "ld: " in line), lines[-1]).strip()
