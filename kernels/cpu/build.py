"""The native kernels as a shared object: compiled when first needed, kept in the user's cache, loaded once a process.

A file is called `native-<what>-<compiler>-<contents>.so`, three digests:

- what: sources, flags, torch's version and the architecture; so what is stale has another name and is not found
- compiler: its path and version; where there is no compiler any will do, so that a built cache can be taken along
- contents: of the file itself; so a damaged file is noticed before it is loaded, which would end the process (SIGBUS)

One process builds, others wait; the lock is the system's, so it goes with a process that is killed. A file comes to its
name whole or not at all. Where the cache cannot be written, a build lasts as long as the process.

What the user should know while it happens is logged as a warning: Python prints these on standard error without any
set-up.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import compiler as cxx

SOURCES = Path(__file__).with_name("native")
CACHE = Path("~/.cache/tilewhisper/native").expanduser()
KEPT = 4
"""How many of the latest libraries stay in the cache: environments that differ must not clear away each other's."""

_log = logging.getLogger(__name__)
_one_at_a_time = threading.RLock()
_loaded: Path | None = None


@dataclass(frozen=True)
class Build:
    """What is compiled, how, and where it is kept. A build with other flags is another file."""

    sources: Path = SOURCES
    extra_flags: tuple[str, ...] = ()
    """After all others, for every unit and the linker: ("-g", "-O1", "-fsanitize=address") makes a checked library."""
    cache: Path = CACHE

    @property
    def stem(self) -> str:
        """`native-<what>`: all that the result depends on but the compiler."""
        units = {unit.name: flags for unit, flags in cxx.unit_flags(self.sources).items()}
        machine = (sys.platform, platform.machine(), cxx.torch_version())
        digest = hashlib.sha256(repr((machine, cxx.FLAGS, units, self.extra_flags)).encode())
        for source in sorted((*self.sources.glob("*.h"), *self.sources.glob("*.cpp"))):
            digest.update(f"{source.name} {source.stat().st_size}\n".encode() + source.read_bytes())
        return f"native-{digest.hexdigest()[:16]}"

    def log(self, compiler: cxx.Compiler) -> Path:
        """What the compiler said when it failed. While it is there, `why_unavailable` says so and no backend tries."""
        return self.cache / f"{self.stem}-{_digest_of(compiler)}.log"


NATIVE = Build()


def why_unavailable(build: Build = NATIVE) -> str | None:
    """Why there can be no library on this machine, or None. Compiles nothing."""
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
    """The library that is built already and sound, or None."""
    return next(filter(_sound, _candidates(build)), None)


def library(build: Build = NATIVE, *, force: bool = False) -> Path:
    """The library, compiled if there is none yet, or anyway with `force`. Raises BackendUnavailable."""
    with _one_at_a_time:
        if not force and (found := find(build)):
            return found
        compiler = cxx.find_compiler()
        with _only_builder(build.cache):
            if not force and (found := find(build)):  # another process's, while this one waited
                return found
            for damaged in _candidates(build):
                if not _sound(damaged):
                    _log.warning("%s is damaged and will be replaced", damaged)
            return _compile(build, compiler)


def load(build: Build = NATIVE) -> Path:
    """Make the operators known to torch: the library they come from. Raises BackendUnavailable.

    A process has one set of them, so the first that is loaded stays, whatever is asked for later.
    """
    global _loaded
    with _one_at_a_time:
        if _loaded is None:
            _loaded = _load(build)
        return _loaded


def instruction_sets() -> tuple[str, ...]:
    """What of the native kernels this processor can run, the fastest first. Raises BackendUnavailable."""
    import torch

    load()
    return tuple(torch.ops.tilewhisper_native.instruction_sets().split())


def _load(build: Build) -> Path:
    import torch

    path = library(build)
    try:
        torch.ops.load_library(path)
    except OSError as e:
        _log.warning("%s cannot be loaded (%s); it will be replaced", path, e.__cause__)
        path = library(build, force=True)
        try:
            torch.ops.load_library(path)
        except OSError as again:
            raise BackendUnavailable(f"the native kernels cannot be loaded: {again.__cause__}") from again
    return path


def _compile(build: Build, compiler: cxx.Compiler) -> Path:
    _log.warning("compiling tilewhisper's native kernels with %s, once: some 10 seconds", compiler.command[0])
    # Named by the sources as they were before: what is edited meanwhile is another build.
    log = build.log(compiler)
    try:
        with tempfile.TemporaryDirectory(prefix="tilewhisper-") as scratch:
            made = cxx.compile_library(compiler, build.sources, build.extra_flags, Path(scratch))
            return _keep(made, build, f"{log.stem}-{_digest_of_file(made)}.so")
    except cxx.CompileError as e:
        reason = f"the native kernels could not be compiled: {e}"
        try:
            log.write_text(f"{reason}\n\n{e.log}", "utf-8")
        except OSError:
            raise BackendUnavailable(reason) from e
        raise BackendUnavailable(f"{reason} (log: {log})") from e
    except OSError as e:
        raise BackendUnavailable(f"the native kernels could not be compiled: {e}") from e


def _keep(made: Path, build: Build, name: str) -> Path:
    """The library under its own name in the cache or, where that cannot be, in a folder that goes with this process."""
    try:
        _clear(build)
        path = _move(made, build.cache / name)
        _keep_latest(build.cache)
    except OSError as e:
        _log.warning(
            "%s cannot be written (%s): the native kernels last for this process only", build.cache, e.strerror
        )
        path = _move(made, _folder_of_this_process() / name)
    return path


def _move(made: Path, path: Path) -> Path:
    part = path.with_suffix(".part")
    try:
        shutil.copyfile(made, part)
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # half of it, on a full disk


def _clear(build: Build) -> None:
    """Away with what this build replaces, and with what killed builders left: nobody else builds now."""
    for file in (*_candidates(build), *build.cache.glob("native-*.part"), *build.cache.glob("native-*.log")):
        file.unlink(missing_ok=True)


def _keep_latest(cache: Path) -> None:
    latest_first = sorted(cache.glob("native-*.so"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in latest_first[KEPT:]:
        file.unlink(missing_ok=True)


def _candidates(build: Build) -> list[Path]:
    """What is called as this build's library would be. In a cache of this process's own too, where there is one."""
    try:
        compiler = _digest_of(cxx.find_compiler())
    except BackendUnavailable:
        compiler = "*"
    folders = [build.cache]
    if _folder_of_this_process.cache_info().currsize:
        folders.append(_folder_of_this_process())
    pattern = f"{build.stem}-{compiler}-*.so"
    return sorted(file for folder in folders for file in folder.glob(pattern) if file.is_file())


def _sound(path: Path) -> bool:
    try:
        return path.stem.endswith(f"-{_digest_of_file(path)}")
    except OSError:
        return False


def _digest_of(compiler: cxx.Compiler) -> str:
    return hashlib.sha256(repr(compiler).encode()).hexdigest()[:8]


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@contextmanager
def _only_builder(cache: Path) -> Iterator[None]:
    """Until no other process builds here. A cache that cannot be written is shared with nobody: no need to wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(cache / "lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.warning("another process is compiling tilewhisper's native kernels; waiting for it")
            lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _folder_of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tilewhisper-native-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder
