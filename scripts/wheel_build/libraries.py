"""Checks of a compiled library by its format: ELF, Mach-O or PE."""

import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import lief

from tilewhisper.kernels.cpu.targets import Target

TORCHS_PREFIXES = ("torch_", "aoti_torch_")
"""Of the functions of torch's stable ABI."""
OLDEST = {"linux": ("glibc", (2, 28)), "darwin": ("macOS", (11, 0, 0)), "win32": ("Windows", (10, 0))}
"""What a library may need at most."""
SYSTEMS_LIBRARIES = {
    "linux": r"lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux-[\w-]+\.so\.\d",
    "darwin": r"/usr/lib/libSystem\.B\.dylib",
    "win32": r"(?i)(kernel32|ntdll|api-ms-win-crt-[\w-]+)\.dll",
}
EXPORTS = {
    "linux": r"",
    "darwin": r"_Z(n|d)[wal]\w+|__dso_handle|_mh_dylib_header",
    "win32": r"_CRT_INIT|__mingw_module_is_dll|(__)?unw_getcontext|atexit",
}
"""What a library may export: on macOS and Windows zig's linkers cannot hide some functions of its runtime. On macOS the
weak operators new and delete become those that were loaded first, the system's; on Windows nobody looks for exports."""
TORCHS_LIBRARY = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}
_MACHINES = {
    "x86_64": lief.ELF.ARCH.X86_64,
    "aarch64": lief.ELF.ARCH.AARCH64,
    "arm64": lief.MachO.Header.CPU_TYPE.ARM64,
    "AMD64": lief.PE.Header.MACHINE_TYPES.AMD64,
}


class WheelError(Exception):
    """A wheel that must not be published."""


@dataclass(frozen=True)
class Interface:
    """What a library needs and offers."""

    machine: object
    libraries: frozenset[str]
    torch: frozenset[str]
    """The functions of torch that it imports."""
    exports: frozenset[str]
    oldest: tuple[int, ...]
    """The oldest version of the system, or of its C library on Linux, that it runs on."""


def check_library(data: bytes, target: Target, torchs_exports: Collection[str] | None) -> str:
    """The library's interface in words. Raises WheelError."""
    found = interface(data)
    torch = TORCHS_LIBRARY[target.system]
    others = {name for name in found.libraries if not re.fullmatch(SYSTEMS_LIBRARIES[target.system], name)}
    if found.machine != _MACHINES[target.machine]:
        raise WheelError(f"the library is for {found.machine}")
    # On macOS torch's functions are looked up among the loaded libraries.
    if others != (set() if target.system == "darwin" else {torch}):
        raise WheelError(f"the library needs {sorted(others)}; allowed are {torch} and the system's")
    if exports := [name for name in sorted(found.exports) if not re.fullmatch(EXPORTS[target.system], name)]:
        raise WheelError(f"the library exports {exports}; torch finds its operators without")
    if not found.torch:
        raise WheelError("the library calls no function of torch")
    system, allowed = OLDEST[target.system]
    oldest = ".".join(map(str, found.oldest))
    if not found.oldest or found.oldest > allowed:
        raise WheelError(f"the library needs {system} {oldest}")
    words = f"{len(found.torch)} functions of torch, no exports of its own, {system} {oldest}"
    if torchs_exports is None:
        return words
    if missing := found.torch - set(torchs_exports):
        raise WheelError(f"torch does not export {sorted(missing)}")
    return f"{words}, all exported by torch"


def interface(data: bytes) -> Interface:
    """The interface of an ELF, Mach-O or PE library."""
    parsed = lief.parse(data)
    if isinstance(parsed, lief.ELF.Binary):
        return _of_elf(parsed)
    if isinstance(parsed, lief.MachO.Binary):
        return _of_macho(parsed)
    if isinstance(parsed, lief.PE.Binary):
        return _of_pe(parsed)
    raise WheelError("the library is neither ELF nor Mach-O nor PE")


def exports_of_torch(folder: Path, target: Target) -> frozenset[str]:
    """The functions of the stable ABI that torch exports in its wheel for the target. Raises WheelError."""
    name = f"torch/lib/{TORCHS_LIBRARY[target.system]}"
    ending = re.compile(target.wheel.replace("macosx_11_0", r"macosx_\d+_\d+") + r"\.whl$")
    for wheel in sorted(folder.glob("torch-*.whl")):
        if ending.search(wheel.name):
            with zipfile.ZipFile(wheel) as archive:
                return frozenset(filter(is_torchs, interface(archive.read(name)).exports))
    raise WheelError(f"there is no wheel of torch for {target.wheel} in {folder}")


def _of_elf(library: lief.ELF.Binary) -> Interface:
    needed = [
        tuple(map(int, auxiliary.name.removeprefix("GLIBC_").split(".")))
        for requirement in library.symbols_version_requirement
        for auxiliary in requirement.get_auxiliary_symbols()
        if auxiliary.name.startswith("GLIBC_")
    ]
    newest = max(needed, default=(0,))
    return Interface(
        library.header.machine_type,
        frozenset(map(str, library.libraries)),
        frozenset(filter(is_torchs, (str(symbol.name) for symbol in library.imported_symbols))),
        frozenset(str(symbol.name) for symbol in library.exported_symbols),
        newest,
    )


def _of_macho(library: lief.MachO.Binary) -> Interface:
    oldest = library.build_version.minos if library.build_version else []
    names = (str(symbol.name).removeprefix("_") for symbol in library.imported_symbols)
    return Interface(
        library.header.cpu_type,
        frozenset(each.name for each in library.libraries if each.command is not lief.MachO.LoadCommand.TYPE.ID_DYLIB),
        frozenset(filter(is_torchs, names)),
        frozenset(str(symbol.name).removeprefix("_") for symbol in library.exported_symbols),
        tuple(oldest),
    )


def _of_pe(library: lief.PE.Binary) -> Interface:
    entries = {(str(each.name), str(entry.name)) for each in library.imports for entry in each.entries}
    exports = library.get_export()
    return Interface(
        library.header.machine,
        frozenset(name for name, _ in entries),
        frozenset(filter(is_torchs, (name for _, name in entries))),
        frozenset(str(entry.name) for entry in exports.entries) if exports else frozenset(),
        (library.optional_header.major_subsystem_version, library.optional_header.minor_subsystem_version),
    )


def is_torchs(name: str) -> bool:
    return name.startswith(TORCHS_PREFIXES)
