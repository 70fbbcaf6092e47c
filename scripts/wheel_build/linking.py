"""Compile and link the library of the kernels for a target, with zig, without torch's libraries for that target.

The library needs only the C functions of torch's stable ABI. Their names are in the compiled units; the linker gets a
stand-in for torch's library that has these names. On macOS it looks them up among the loaded libraries.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lief
from wheel_build.libraries import is_torchs

from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.build import Build
from tilewhisper.kernels.cpu.targets import SUFFIXES, Target

_ZIG = (sys.executable, "-m", "ziglang")


def link(target: Target, scratch: Path) -> Path:
    """The library in the folder `scratch`, under the name that the package looks for. Raises CompileError."""
    build = Build(system=target.system, machine=target.machine)
    compiler = cxx.zig_compiler(target)
    objects = cxx.compile_objects(compiler, cxx.units_with_torch(build.units, ()), scratch)
    made = scratch / f"tilewhisper{SUFFIXES.get(target.system, '.so')}"
    options = {"linux": _for_linux, "darwin": _for_macos, "win32": _for_windows}[target.system]
    cxx.run([*compiler.command, "-shared", *map(str, objects), *options(target, objects, scratch), "-o", str(made)])
    return made.rename(made.with_name(build.libraries.name(f"{build.stem}-wheel", made)))


@contextmanager
def fresh_compiler_cache() -> Iterator[None]:
    """Let zig compile everything again, its own libraries too."""
    names = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="zig-") as folder:
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _for_linux(target: Target, objects: Sequence[Path], scratch: Path) -> tuple[str, ...]:
    """Depend on libtorch_cpu.so, which `import torch` has loaded before, by its name only. Export nothing."""
    source, stand_in, exports = scratch / "torch.c", scratch / "libtorch_cpu.so", scratch / "exports"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in _torchs_functions(objects)))
    cxx.run(
        [
            *_ZIG,
            "cc",
            "-target",
            target.zig,
            "-shared",
            str(source),
            f"-Wl,-soname,{stand_in.name}",
            "-o",
            str(stand_in),
        ]
    )
    exports.write_text("{ local: *; };\n")
    return (str(stand_in), f"-Wl,--version-script={exports}", "-Wl,-s", "-Wl,--build-id=none")


def _for_macos(target: Target, objects: Sequence[Path], scratch: Path) -> tuple[str, ...]:
    return ("-Wl,-undefined,dynamic_lookup", "-Wl,-install_name,@rpath/tilewhisper.dylib", "-Wl,-s")


def _for_windows(target: Target, objects: Sequence[Path], scratch: Path) -> tuple[str, ...]:
    definitions, imports = scratch / "torch_cpu.def", scratch / "torch_cpu.lib"
    names = "".join(f"    {name}\n" for name in _torchs_functions(objects))
    definitions.write_text(f"LIBRARY torch_cpu.dll\nEXPORTS\n{names}")
    cxx.run([*_ZIG, "dlltool", "-m", "i386:x86-64", "-d", str(definitions), "-l", str(imports)])
    return (str(imports), "-Wl,-s", "-Wl,-Brepro")  # a digest where the time would be


def _torchs_functions(objects: Sequence[Path]) -> list[str]:
    """The functions of torch that the units call."""
    names: set[str] = set()
    for path in objects:
        parsed = lief.parse(path)
        assert isinstance(parsed, lief.ELF.Binary | lief.COFF.Binary), path
        names.update(str(symbol.name) for symbol in parsed.symbols)
    return sorted(name for name in names if is_torchs(name))
