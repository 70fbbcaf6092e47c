"""The native kernels as a shared library: compiled on first use, cached for the user, loaded once per process.

A file is named `native-<inputs>-<compiler>-<contents>.so`, three digests:

- inputs: sources, flags, torch's version and the architecture; a stale library has another name and is not found
- compiler: its path and version; without a compiler any digest matches, so that a built cache can be copied to another
  machine
- contents: of the file itself; a damaged file is noticed before it is loaded, which would end the process (SIGBUS)

One process builds, others wait; the operating system holds the lock, and frees it when a process is killed. A file gets
its name only when it is complete. Where the cache cannot be written, the library lasts as long as the process.

Progress is logged as a warning, which Python prints on standard error without any set-up.
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
from tilewhisper.kernels.user_cache import user_cache

SOURCES = Path(__file__).with_name("native")
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
    cache: Path = CACHE

    @property
    def stem(self) -> str:
        """`native-<inputs>`: the digest of everything that the library depends on except the compiler."""
        units = {unit.name: flags for unit, flags in cxx.unit_flags(self.sources).items()}
        machine = (sys.platform, platform.machine(), cxx.torch_version())
        digest = hashlib.sha256(repr((machine, cxx.FLAGS, units, self.extra_flags)).encode())
        for source in sorted((*self.sources.glob("*.h"), *self.sources.glob("*.cpp"))):
            digest.update(f"{source.name} {source.stat().st_size}\n".encode() + source.read_bytes())
        return f"native-{digest.hexdigest()[:16]}"

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
    """The library in the cache, if it is complete and undamaged, or None."""
    return next(filter(_is_intact, _candidates(build)), None)


def library(build: Build = NATIVE, *, force: bool = False) -> Path:
    """The library, compiled if there is none yet or with `force`. Raises BackendUnavailable."""
    with _one_at_a_time:
        if not force and (found := find(build)):
            return found
        compiler = cxx.find_compiler()
        with _only_builder(build.cache):
            if not force and (found := find(build)):  # built by another process while this one waited
                return found
            for damaged in _candidates(build):
                if not _is_intact(damaged):
                    _log.warning("%s is damaged and will be replaced", damaged)
            return _compile(build, compiler)


def load(build: Build = NATIVE) -> Path:
    """Register the operators with torch and return their library. Raises BackendUnavailable.

    A process has one set of operators: the first library stays, whichever build is requested later.
    """
    global _loaded
    with _one_at_a_time:
        if _loaded is None:
            _loaded = _load(build)
        return _loaded


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this processor can run, fastest first. Raises BackendUnavailable."""
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
            raise BackendUnavailable(
                f"the native kernels cannot be loaded: {again.__cause__}; policy torch runs without them"
            ) from again
    return path


def _compile(build: Build, compiler: cxx.Compiler) -> Path:
    _log.warning("compiling tilewhisper's native kernels with %s, once: some 10 seconds", compiler.command[0])
    # Named by the sources as they were before: sources that are edited meanwhile are another build.
    log = build.log(compiler)
    try:
        with tempfile.TemporaryDirectory(prefix="tilewhisper-") as scratch:
            made = cxx.compile_library(compiler, build.sources, build.extra_flags, Path(scratch))
            return _store(made, build, f"{log.stem}-{_digest_of_file(made)}.so")
    except cxx.CompileError as e:
        reason = f"the native kernels could not be compiled: {e}"
        try:
            log.write_text(f"{reason}\n\n{e.log}", "utf-8")
        except OSError:
            raise BackendUnavailable(reason) from e
        raise BackendUnavailable(f"{reason} (log: {log})") from e
    except OSError as e:
        raise BackendUnavailable(f"the native kernels could not be compiled: {e}") from e


def _store(made: Path, build: Build, name: str) -> Path:
    """Move the library to the cache or, if that fails, to a folder that is deleted with this process."""
    try:
        _clear(build)
        path = _move(made, build.cache / name)
        _delete_oldest(build.cache)
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
        part.unlink(missing_ok=True)  # incomplete, on a full disk


def _clear(build: Build) -> None:
    """Delete the files that this build replaces, and those that killed builders left: no other process builds now."""
    for file in (*_candidates(build), *build.cache.glob("native-*.part"), *build.cache.glob("native-*.log")):
        file.unlink(missing_ok=True)


def _delete_oldest(cache: Path) -> None:
    latest_first = sorted(cache.glob("native-*.so"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in latest_first[MAX_CACHED:]:
        file.unlink(missing_ok=True)


def _candidates(build: Build) -> list[Path]:
    """Files with the name of this build's library, in the cache and in the folder of this process, if there is one."""
    try:
        compiler = _digest_of(cxx.find_compiler())
    except BackendUnavailable:
        compiler = "*"
    folders = [build.cache]
    if _folder_of_this_process.cache_info().currsize:
        folders.append(_folder_of_this_process())
    pattern = f"{build.stem}-{compiler}-*.so"
    return sorted(file for folder in folders for file in folder.glob(pattern) if file.is_file())


def _is_intact(path: Path) -> bool:
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
    """Hold the lock of the cache, so that one process builds at a time; none for a cache that cannot be written."""
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
