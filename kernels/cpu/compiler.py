"""Find the machine's C++ compiler, and compile a folder of sources into one library of torch operators.

Sources are compiled against torch's stable ABI, and never with `-march=native`: each instruction set is a unit of its
own with its own flags, `isa_<name>.cpp`, and the library chooses one at run time, so that it works on any processor of
its architecture. Units of other architectures are left out; the other units see `TILEWHISPER_<NAME>` for each that is
included.

This module has no cache, and does not import torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable

COMPILERS = ("g++", "clang++", "c++")
HOW_TO_INSTALL = "`apt install g++`, `dnf install gcc-c++`, `apk add g++` or `xcode-select --install`"

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
    """The first line of its `--version`."""

    def __str__(self) -> str:
        return f"{shlex.join(self.command)} ({self.version})"


def find_compiler() -> Compiler:
    """The compiler in `CXX`, else the first of COMPILERS on PATH. Raises BackendUnavailable.

    `CXX` is not a setting of this library: builds of all kinds read this machine's compiler from it.
    """
    if sys.platform == "win32":
        raise BackendUnavailable("the native kernels cannot be compiled on Windows yet; use WSL")
    if named := shlex.split(os.environ.get("CXX", "")):
        if program := shutil.which(named[0]):
            return _ask_version(program, *named[1:])
        raise BackendUnavailable(f"the C++ compiler {named[0]!r} in CXX was not found; correct CXX or unset it")
    if program := next(filter(None, map(shutil.which, COMPILERS)), None):
        return _ask_version(program)
    names = ", ".join(COMPILERS)
    raise BackendUnavailable(f"no C++ compiler: none of {names} is on PATH; install one with {HOW_TO_INSTALL}")


@functools.cache
def _ask_version(*command: str) -> Compiler:
    try:
        said = _run([*command, "--version"])
    except CompileError as e:
        raise BackendUnavailable(f"the C++ compiler {shlex.join(command)} does not work: {e}") from e
    return Compiler(command, said.partition("\n")[0].strip())


def torch_version() -> str:
    return importlib.metadata.version("torch")


def unit_flags(sources: Path, other_flags: Mapping[str, tuple[str, ...]] = {}) -> dict[Path, tuple[str, ...]]:
    """The units (.cpp) for this machine's architecture, each with the flags that are not in FLAGS.

    `other_flags` of an instruction set replace those in INSTRUCTION_SETS.
    """
    sets = {"portable": (), **INSTRUCTION_SETS.get(platform.machine(), {}), **other_flags}
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
    torch = _torch_folder()
    include = f"-isystem{torch / 'include'}"
    units = {unit: (*FLAGS, *flags, *extra_flags, include) for unit, flags in unit_flags.items()}
    # torch's own libraries are loaded before this one, so it needs no path to them.
    return compile_units(compiler, units, extra_flags, (f"-L{torch / 'lib'}", "-ltorch_cpu"), scratch)


def compile_units(
    compiler: Compiler,
    units: Mapping[Path, tuple[str, ...]],
    linker_flags: Sequence[str],
    libraries: Sequence[str],
    scratch: Path,
) -> Path:
    """Compile units with their flags to one shared library in the folder `scratch`. Raises CompileError."""

    def compile_unit(item: tuple[Path, tuple[str, ...]]) -> str:
        unit, flags = item
        target = str(scratch / f"{unit.stem}.o")
        _run([*compiler.command, *flags, "-c", str(unit), "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(compile_unit, units.items()))
    library = scratch / "library.so"
    _run([*compiler.command, "-shared", *linker_flags, *parts, *libraries, "-o", str(library)])
    return library


@functools.cache
def this_processor(compiler: Compiler) -> str:
    """What the compiler defines for this machine's processor: equal where -march=native means the same."""
    return _run([*compiler.command, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])


def _torch_folder() -> Path:
    """The folder of the installed torch, found without the 2 s of its import."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable("torch is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(command: Sequence[str]) -> str:
    """The compiler's output, of both streams. Raises CompileError."""
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
