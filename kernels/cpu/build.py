"""The native kernels as a shared library, loaded once per process: a wheel's, or compiled on first use and kept.

A file is named `native-<inputs>-<compiler>-<contents>.so`, three digests (see `library_cache`):

- inputs: sources, flags, the system and the architecture. The version of torch is none of them: the sources use its
  stable ABI only
- compiler: its command and version; without a compiler any digest matches, so that a built cache can be copied to
  another machine
- contents: of the file itself

A wheel's file lies in the package under such a name too. It is used if its inputs are those of the installed sources.

Progress is logged as a warning, which Python prints on standard error without any set-up.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.targets import SUFFIXES
from tilewhisper.kernels.library_cache import LibraryCache
from tilewhisper.kernels.user_cache import user_cache

SOURCES = Path(__file__).with_name("native")
PACKAGED = Path(__file__).with_name("prebuilt")
"""The folder of a wheel's library; a clone has none."""
CACHE = user_cache("native")
MAX_CACHED = 4
"""How many of the latest libraries stay in the cache: different environments must not delete each other's."""

_log = logging.getLogger(__name__)
_one_at_a_time = threading.RLock()
_loaded: Path | None = None


def _renew_lock() -> None:
    """In a forked process, which does not have the thread that may hold the lock."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class Build:
    """The sources, flags and cache of a library. A build with other flags is another file."""

    sources: Path = SOURCES
    extra_flags: tuple[str, ...] = ()
    """For every unit and the linker, after all other flags, such as ("-g", "-O1", "-fsanitize=address")."""
    set_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of an instruction set, instead of those in INSTRUCTION_SETS."""
    cache: Path = CACHE
    packaged: Path = PACKAGED
    system: str = sys.platform
    machine: str = platform.machine()

    @property
    def units(self) -> dict[Path, tuple[str, ...]]:
        """The sources to compile, with their own flags."""
        return cxx.unit_flags(self.sources, self.machine, self.set_flags)

    @cached_property
    def stem(self) -> str:
        """`native-<inputs>`: the digest of everything that the library depends on except the compiler.

        Of the sources as they are when it is first asked for, as a process asks a dozen times.
        """
        units = {unit.name: flags for unit, flags in self.units.items()}
        machine = (self.system, self.machine)
        digest = hashlib.sha256(repr((machine, cxx.FLAGS, units, self.extra_flags)).encode())
        for source in sorted((*self.sources.glob("*.h"), *self.sources.glob("*.cpp"))):
            digest.update(f"{source.name} {source.stat().st_size}\n".encode() + source.read_bytes())
        return f"native-{digest.hexdigest()[:16]}"

    @property
    def libraries(self) -> LibraryCache:
        return self._libraries_in(self.cache)

    def wheels_library(self) -> Path | None:
        """The library that came in the wheel, if it is complete and of these sources, or None."""
        return self._libraries_in(self.packaged).find(f"{self.stem}-*")

    def _libraries_in(self, folder: Path) -> LibraryCache:
        suffix = SUFFIXES.get(self.system, ".so")
        return LibraryCache(folder, "native", "tilewhisper's native kernels", MAX_CACHED, suffix)

    def log(self, compiler: cxx.Compiler) -> Path:
        """The output of a failed compiler. While it exists, `why_unavailable` reports it and no backend retries."""
        return self.cache / f"{self.stem}-{_digest_of(compiler)}.log"


NATIVE = Build()


def why_unavailable(build: Build = NATIVE) -> str | None:
    """Why this machine cannot have the library, or None. Compiles nothing."""
    if find(build):
        return None
    try:
        log = build.log(cxx.find_compiler())
    except BackendUnavailable as e:
        return str(e)
    try:
        return f"{log.read_text('utf-8').partition(chr(10))[0]} (log: {log}; `tilewhisper build` tries again)"
    except OSError:
        return None


def find(build: Build = NATIVE) -> Path | None:
    """The wheel's library, else that in the cache, if it is complete and undamaged, or None."""
    return build.wheels_library() or _find_compiled(build)


def _find_compiled(build: Build) -> Path | None:
    try:
        compiler = _digest_of(cxx.find_compiler())
    except BackendUnavailable:
        compiler = "*"
    return build.libraries.find(f"{build.stem}-{compiler}")


def library(build: Build = NATIVE, *, force: bool = False) -> Path:
    """The library, compiled if there is none yet or with `force`. Raises BackendUnavailable."""
    return (None if force else build.wheels_library()) or _compiled(build, force=force)


def _compiled(build: Build, *, force: bool = False) -> Path:
    with _one_at_a_time:
        if not force and (found := _find_compiled(build)):
            return found
        compiler = cxx.find_compiler()
        # Named by the sources as they were before: sources that are edited meanwhile are another build.
        log = build.log(compiler)
        try:
            return build.libraries.obtain(
                log.stem, lambda scratch: _compile(build, compiler, log, scratch), force=force
            )
        except OSError as e:
            raise BackendUnavailable(f"the native kernels could not be compiled: {e}") from e


def load(build: Build = NATIVE) -> Path:
    """Register the operators with torch and return their library. Raises BackendUnavailable.

    A process has one set of operators: the first library stays, whichever build is requested later.
    """
    global _loaded
    with _one_at_a_time:
        if _loaded is None:
            _loaded = _load(build)
        return _loaded


def why_not_sets() -> dict[str, str]:
    """The instruction sets of the library, fastest first, each with the reason why this processor cannot run it, or "".

    Raises BackendUnavailable.
    """
    import torch

    load()
    lines = torch.ops.tilewhisper_native.instruction_sets().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this processor can run, fastest first. Raises BackendUnavailable."""
    return tuple(name for name, reason in why_not_sets().items() if not reason)


def _load(build: Build) -> Path:
    if path := build.wheels_library():
        try:
            return _register(path)
        except OSError as e:
            _log.warning("%s of the wheel cannot be loaded (%s); it will be compiled instead", path, e.__cause__)
    path = _compiled(build)
    try:
        return _register(path)
    except OSError as e:
        _log.warning("%s cannot be loaded (%s); it will be replaced", path, e.__cause__)
    path = _compiled(build, force=True)
    try:
        return _register(path)
    except OSError as again:
        raise BackendUnavailable(
            f"the native kernels cannot be loaded: {again.__cause__}; policy torch runs without them"
        ) from again


def _register(path: Path) -> Path:
    """Load a library, which registers its operators with torch. Raises OSError."""
    import torch

    torch.ops.load_library(path)
    return path


def _compile(build: Build, compiler: cxx.Compiler, log: Path, scratch: Path) -> Path:
    name, duration = ("zig", "about a minute") if compiler.zig_for else (compiler.command[0], "about half a minute")
    _log.warning("compiling tilewhisper's native kernels with %s, once: %s", name, duration)
    try:
        return cxx.compile_library(compiler, build.units, build.extra_flags, scratch)
    except cxx.CompileError as e:
        reason = f"the native kernels could not be compiled: {e}"
        try:
            log.write_text(f"{reason}\n\n{e.log}", "utf-8")
        except OSError:
            raise BackendUnavailable(reason) from e
        raise BackendUnavailable(f"{reason} (log: {log})") from e


def _digest_of(compiler: cxx.Compiler) -> str:
    return hashlib.sha256(str(compiler).encode()).hexdigest()[:8]
