"""Read little-endian binary weight files through memory maps, with bounds checks."""

from __future__ import annotations

import mmap
import struct
import sys
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.stored_tensor import Plain
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.memory import release_pages

MAX_RANK = 4
"""Dimensions of a tensor; Whisper's have at most 3, and ggml counts 4."""

MAX_NAME = 1024
"""Bytes of a tensor's name."""


def contents(file: Path) -> mmap.mmap | bytearray:
    """Map a file's bytes. Raises CheckpointError."""
    try:
        if not file.stat().st_size:
            return bytearray()
        with file.open("rb") as opened:
            # Copy-on-write, because torch rejects read-only buffers.
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        if sys.platform == "linux":  # else a single embedding brings 2 MB into memory
            with suppress(OSError):  # a kernel without huge pages
                mapped.madvise(mmap.MADV_NOHUGEPAGE)
        return mapped
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: cannot be read ({error.strerror}); check that the file exists and its permissions"
        ) from error


class Cursor:
    """A read position in the bytes of one or more files, as if they were joined. `name` is for messages."""

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self._parts = [contents(file) for file in files]
        self._starts = [sum(map(len, self._parts[:index])) for index in range(len(self._parts))]
        self._size = sum(map(len, self._parts))
        self._name = name
        self._position = 0

    @property
    def at_end(self) -> bool:
        """Whether all bytes have been read."""
        return self._position == self._size

    def _advance(self, count: int) -> int:
        start = self._position
        if not 0 <= count <= self._size - start:
            raise CheckpointError(
                f"{self._name}: the file is incomplete or corrupt: it has {self._size} bytes and a record of "
                f"{count} starts at {start}; download it again"
            )
        self._position = start + count
        return start

    def release(self) -> None:
        """Drop the files' pages from this process's memory, since reading a header maps the pages around it too."""
        for part in self._parts:
            if isinstance(part, mmap.mmap):
                release_pages(torch.frombuffer(part, dtype=torch.uint8))

    def skip(self, count: int) -> None:
        """Skip `count` bytes."""
        self._advance(count)

    def align(self, multiple: int) -> None:
        """Skip to the next multiple of `multiple` bytes from the beginning."""
        self._advance(-self._position % multiple)

    def raw(self, count: int) -> bytes:
        """Read `count` bytes."""
        start = self._advance(count)
        pieces = []
        for part, offset in zip(self._parts, self._starts, strict=True):
            first, last = max(0, start - offset), start + count - offset
            if first < len(part) and last > 0:
                pieces.append(part[first:last])
        return b"".join(pieces)

    def name(self, count: int) -> str:
        """Read `count` bytes as a tensor's name: printable ASCII, with an optional zero at the end."""
        raw = self.raw(count).removesuffix(b"\0") if count <= MAX_NAME else b"\0"
        if not (raw.isascii() and raw.decode("ascii").isprintable()):
            raise CheckpointError(
                f"{self._name}: corrupt at byte {self._position}: expected a tensor's name; download it again"
            )
        return raw.decode("ascii")

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Read values in a `struct` format."""
        return struct.unpack("<" + layout, self.raw(struct.calcsize("<" + layout)))

    def rank(self, rank: int) -> int:
        """Check a tensor's number of dimensions."""
        if not 0 <= rank <= MAX_RANK:
            raise CheckpointError(
                f"{self._name}: corrupt at byte {self._position}: a tensor of {rank} dimensions, expected at most "
                f"{MAX_RANK}; download it again"
            )
        return rank

    def stored(self, dtype: torch.dtype, shape: Sequence[int]) -> Plain:
        """The next bytes as a tensor of `shape` and `dtype`, left in the file."""
        data, mapped = self.span(size(shape, self._name) * dtype.itemsize)
        return Plain(tuple(shape), data, mapped, dtype)

    def span(self, count: int) -> tuple[Tensor, bool]:
        """The next `count` bytes (count,) as uint8, and whether they are mapped: copied if two files have them."""
        start = self._advance(count)
        index = max(0, bisect_right(self._starts, start) - 1)
        part, offset = self._parts[index], start - self._starts[index]
        if count and offset + count <= len(part):
            return torch.frombuffer(part, dtype=torch.uint8, count=count, offset=offset), True
        self._position = start
        return torch.frombuffer(bytearray(self.raw(count)), dtype=torch.uint8), False


def size(shape: Sequence[int], file: str) -> int:
    """The number of values of a tensor of `shape`. Raises CheckpointError, with the `file`, for a size below 1."""
    if any(length < 1 for length in shape):
        raise CheckpointError(
            f"{file}: a tensor of the impossible shape {tuple(shape)}: the file is corrupt; download it again"
        )
    return prod(shape)
