"""Compiled shared libraries in a folder of the user: compiled on first use, by one process at a time.

A file is named `<stem>-<contents>.so`, or has the system's own suffix. The stem has digests of everything that the
library depends on, so a stale library has another name and is not found. The contents are a digest of the file itself:
a damaged file is noticed before it is loaded, which would end the process (SIGBUS).

One process compiles, others wait; the operating system holds the lock, and frees it when a process is killed. A file
gets its name only when it is complete. Where the folder cannot be written, the library lasts as long as the process.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LibraryCache:
    """A folder of libraries of one kind."""

    folder: Path
    prefix: str
    """Of all file names of this kind."""
    title: str
    """In messages, such as "tilewhisper's native kernels"."""
    limit: int
    """How many of the latest libraries stay: different environments must not delete each other's."""
    suffix: str = ".so"

    def find(self, stem: str) -> Path | None:
        """The library, complete and undamaged, or None. The stem may have wildcards."""
        return next(filter(_is_intact, self._candidates(stem)), None)

    def obtain(self, stem: str, make: Callable[[Path], Path], *, force: bool = False) -> Path:
        """The library, if need be made by `make` in the folder that it is given. Raises what `make` raises."""
        with self._only_builder():
            if not force and (found := self.find(stem)):  # perhaps made by another process while this one waited
                return found
            for damaged in self._candidates(stem):
                if not _is_intact(damaged):
                    _log.warning("%s is damaged and will be replaced", damaged)
            with tempfile.TemporaryDirectory(prefix="tilewhisper-") as scratch:
                return self._store(make(Path(scratch)), stem)

    def name(self, stem: str, made: Path) -> str:
        """The file name of a library."""
        return f"{stem}-{_digest_of_file(made)}{self.suffix}"

    def _store(self, made: Path, stem: str) -> Path:
        """Move the library to the cache or, if that fails, to a folder that is deleted with this process."""
        name = self.name(stem, made)
        try:
            self._clear(stem)
            path = _move(made, self.folder / name)
            self._delete_oldest()
        except OSError as e:
            _log.warning(
                "%s cannot be written (%s): %s last for this process only", self.folder, e.strerror, self.title
            )
            path = _move(made, folder_of_this_process() / name)
        return path

    def _clear(self, stem: str) -> None:
        """Delete the files that this library replaces, and those that killed builders left: none builds now."""
        left = (*self.folder.glob(f"{self.prefix}-*.part"), *self.folder.glob(f"{self.prefix}-*.log"))
        for file in (*self._candidates(stem), *left):
            _delete(file)

    def _delete_oldest(self) -> None:
        libraries = self.folder.glob(f"{self.prefix}-*{self.suffix}")
        for file in sorted(libraries, key=lambda file: file.stat().st_mtime, reverse=True)[self.limit :]:
            _delete(file)

    def _candidates(self, stem: str) -> list[Path]:
        """Files with this stem, in the cache and in the folder of this process, if there is one."""
        folders = [self.folder]
        if folder_of_this_process.cache_info().currsize:
            folders.append(folder_of_this_process())
        return sorted(file for folder in folders for file in folder.glob(f"{stem}-*{self.suffix}") if file.is_file())

    @contextmanager
    def _only_builder(self) -> Iterator[None]:
        """Hold the folder's lock, so that one process builds at a time; none for a folder that cannot be written."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                _log.warning("another process is compiling %s; waiting for it", self.title)
                lock.acquire()
        except OSError:
            yield
            return
        try:
            yield
        finally:
            lock.release()


def _delete(file: Path) -> None:
    """Windows keeps a file that a process has loaded."""
    with suppress(PermissionError):
        file.unlink(missing_ok=True)


def _move(made: Path, path: Path) -> Path:
    part = path.with_suffix(".part")
    try:
        shutil.copyfile(made, part)
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # incomplete, on a full disk


def _is_intact(path: Path) -> bool:
    try:
        return path.stem.endswith(f"-{_digest_of_file(path)}")
    except OSError:
        return False


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@functools.cache
def folder_of_this_process() -> Path:
    """A folder that is deleted with this process."""
    folder = Path(tempfile.mkdtemp(prefix="tilewhisper-libraries-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder
