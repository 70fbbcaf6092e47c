"""Read single rows of a mapped file without its mapping, whose pages would stay in memory after a read."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tilewhisper.models.errors import CheckpointError


class MappedFile:
    """The file that a tensor is a mapping of, open for reading. A fork may use it too, and it may be deleted."""

    def __init__(self, path: str, descriptor: int, offset: int) -> None:
        """Owns `descriptor`; the tensor starts at `offset` bytes."""
        self.path, self.descriptor, self.offset = path, descriptor, offset
        weakref.finalize(self, os.close, descriptor).atexit = False  # other threads may still be reading

    def rows(self, indices: Sequence[int], count: int, row_bytes: int) -> Tensor:
        """The bytes (len(indices), row_bytes) of some of the tensor's `count` rows. Raises CheckpointError."""
        if sys.platform == "win32":
            raise NotImplementedError  # `file_of` finds no file there
        if not all(0 <= index < count for index in indices):
            raise IndexError(f"a row must be one of {count}, got {min(indices)} to {max(indices)}")
        try:
            found = [os.pread(self.descriptor, row_bytes, self.offset + index * row_bytes) for index in indices]
        except OSError as error:
            raise self.unreadable() from error
        if any(len(row) != row_bytes for row in found):
            raise self.unreadable()
        return torch.from_numpy(np.frombuffer(bytearray().join(found), np.uint8)).view(-1, row_bytes)

    def unreadable(self) -> CheckpointError:
        """The error of a read that failed."""
        return CheckpointError(f"{self.path}: it changed or cannot be read any more since it was loaded; load it again")


def file_of(mapped: Tensor) -> MappedFile | None:
    """The file that a contiguous tensor is a mapping of; None where the system does not tell, or its path has another
    file by now. Only Linux tells."""
    with suppress(OSError), Path("/proc/self/maps").open("rb") as lines:
        for line in lines:
            addresses, _, file_offset, _, inode, *path = line.split(None, 5)
            first, end = (int(address, 16) for address in addresses.split(b"-"))
            if first <= mapped.data_ptr() and mapped.data_ptr() + mapped.nbytes <= end and path:
                offset = int(file_offset, 16) + mapped.data_ptr() - first
                return _opened(path[0].removesuffix(b"\n"), int(inode), offset)
    return None


def _opened(path: bytes, inode: int, offset: int) -> MappedFile | None:
    # As long as the mapping exists, no other file of its file system has its inode.
    file = MappedFile(os.fsdecode(path), os.open(path, os.O_RDONLY), offset)
    return file if os.fstat(file.descriptor).st_ino == inode else None
