"""The folder of cached checkpoints: complete files only, within a budget, the least recently used deleted first.

Every file is renamed into place when it is complete, and the time of its last use is its modification time. Nothing
here is a reason to fail: where the folder cannot be written, later starts are slower, which is logged at level INFO.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

LEAST_BUDGET = 4 << 30
"""Bytes that the cache may have in any case, if the disk has twice as much."""
MODELS_OF_THE_LATEST_SIZE = 4
"""The budget has room for so many files like the one being written: a large model must not delete all others."""
ABANDONED = 3600.0
"""Seconds after which an unfinished file counts as left by a killed process."""

CACHE_LINE = 64
WRITE_BYTES = 16 << 20
"""Written at a time: Linux then has the file in huge pages (2 MB), as long as it stays in memory."""
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
}

_log = logging.getLogger(__name__)


def _default_folder() -> Path:
    try:
        return Path("~/.cache/tilewhisper/models").expanduser()
    except RuntimeError:  # a user without a home: a path that cannot be created, so nothing is cached
        return Path(os.devnull, "models")


@dataclass
class CacheFolder:
    """Where cached files are. `path` need not exist."""

    path: Path

    def write(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
        """Write a safetensors file under `name`, whose parent folders are made; whether it is there now."""
        target = self.path / name
        size = sum(tensor.nbytes for tensor in tensors.values())
        try:
            if size > self.budget(size):
                raise OSError(f"its {size >> 20} MB are more than half of the disk's free space")
            with _replacing(target) as file:
                _write_safetensors(file, tensors, metadata)
        except OSError as error:
            _log.info("the cache file %s could not be written, so later starts will be slower: %s", target, error)
            return False
        with suppress(OSError):  # another process deletes files as well
            self._tidy(target)
        return True

    def write_text(self, name: str, text: str) -> None:
        """Write a small text file."""
        target = self.path / name
        try:
            with _replacing(target) as file:
                file.write(text.encode())
        except OSError as error:
            _log.info("the cache file %s could not be written, so later starts will be slower: %s", target, error)

    def used(self, file: Path) -> None:
        """Note that a file was used just now."""
        with suppress(OSError):
            os.utime(file)

    def budget(self, size: int) -> int:
        """Bytes that all files may have together, when one of `size` is written: enough for some of that size, but at
        most half of what the cache and the free space of its disk have together."""
        existing = next(folder for folder in (self.path, *self.path.parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free
        wanted = max(LEAST_BUDGET, MODELS_OF_THE_LATEST_SIZE * size)
        return min(wanted, (free + sum(file.stat().st_size for file in self.files())) // 2)

    def files(self) -> Iterator[Path]:
        """All complete files."""
        return (file for file in self.path.rglob("*") if file.suffix in (".safetensors", ".json"))

    def folders(self) -> list[Path]:
        """The folder of each content, those used last first."""
        found = {file.parent for file in self.files() if file.parent != self.path}
        return sorted(found, key=lambda folder: -last_used(folder))

    def clear(self, folders: Iterable[Path]) -> int:
        """Delete some of its folders, and what led to them: the bytes freed. Raises OSError."""
        freed = 0
        for folder in folders:
            freed += size_of(folder)
            shutil.rmtree(folder)
        for known in self.path.glob("*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if not (self.path / json.loads(known.read_text("utf-8"))["content"]).exists():
                    known.unlink()
        return freed

    def _tidy(self, newest: Path) -> None:
        """Delete abandoned partial files, and the least recently used ones beyond the budget."""
        for part in self.path.rglob("*.part"):
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)
        for outdated in self.path.glob("*.safetensors"):  # float32 copies, as versions before 0.2 cached them
            outdated.unlink(missing_ok=True)
        by_age = sorted((file for file in self.files() if file != newest), key=lambda file: file.stat().st_mtime)
        free = self.budget(newest.stat().st_size) - sum(file.stat().st_size for file in (newest, *by_age))
        for file in by_age:
            if free >= 0:
                break
            free += file.stat().st_size
            file.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                file.parent.rmdir()


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the target's name when it is complete, and is deleted where that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb", buffering=WRITE_BYTES) as file:
            yield file
            # Before the rename, so that after a power failure no cache file is full of zeros.
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)


def _write_safetensors(file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors in safetensors' format, one after the other.

    Unlike by the library, tensors begin at cache lines: a product's loads that straddle two lines take longer.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    ordered = sorted(tensors.items(), key=lambda item: item[1].nbytes % CACHE_LINE != 0)
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % CACHE_LINE)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, tensor in ordered:
        file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def last_used(folder: Path) -> float:
    """When a folder's files were used last, in seconds since the epoch."""
    return max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)


CACHE = CacheFolder(_default_folder())
