"""Read little-endian binary weight files from memory, with bounds checks."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tilewhisper.models.errors import CheckpointError

Buffer = mmap.mmap | bytearray


def contents(files: Sequence[Path]) -> Buffer:
    """The files' bytes, concatenated: a single file is mapped, several are copied. Raises CheckpointError."""
    try:
        if len(files) == 1 and files[0].stat().st_size:
            with files[0].open("rb") as file:
                # Copy-on-write, because torch rejects read-only buffers.
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        joined = bytearray()
        for part in files:
            joined += part.read_bytes()
        return joined
    except OSError as error:
        raise CheckpointError(
            f"{error.filename}: cannot be read ({error.strerror}); check that the file exists and its permissions"
        ) from error


class Cursor:
    """A read position in a file's bytes. `name` is the file's name, for messages."""

    def __init__(self, data: Buffer, name: str) -> None:
        self._data = data
        self._name = name
        self._position = 0

    @property
    def at_end(self) -> bool:
        """Whether all bytes have been read."""
        return self._position == len(self._data)

    def _advance(self, count: int) -> int:
        start = self._position
        if start + count > len(self._data):
            raise CheckpointError(
                f"{self._name}: the file is incomplete or corrupt: it has {len(self._data)} bytes and a record of "
                f"{count} starts at {start}; download it again"
            )
        self._position = start + count
        return start

    def skip(self, count: int) -> None:
        """Skip `count` bytes."""
        self._advance(count)

    def raw(self, count: int) -> bytes:
        """Read `count` bytes."""
        start = self._advance(count)
        return bytes(self._data[start : start + count])

    def name(self, count: int) -> str:
        """Read `count` bytes as a tensor's name: printable ASCII, with an optional zero at the end."""
        raw = self.raw(count).removesuffix(b"\0")
        if not (raw.isascii() and raw.decode("ascii").isprintable()):
            raise CheckpointError(
                f"{self._name}: corrupt at byte {self._position}: expected a tensor's name; download it again"
            )
        return raw.decode("ascii")

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Read values in a `struct` format."""
        return struct.unpack_from("<" + layout, self._data, self._advance(struct.calcsize("<" + layout)))

    def tensor(self, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """Read a tensor of `shape` and `dtype`; it is copied, because tensors in the file are not aligned."""
        count = 1
        for length in shape:
            count *= length
        size = count * dtype.itemsize
        start = self._advance(size)
        if not size:
            return torch.empty(tuple(shape), dtype=dtype)
        flat = torch.frombuffer(self._data, dtype=torch.uint8, count=size, offset=start).clone()
        return flat.view(dtype).reshape(tuple(shape))
