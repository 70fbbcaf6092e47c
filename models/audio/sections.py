"""Parts of a file as files: a range of its bytes, or the file with some bytes replaced. Nothing is copied."""

import io
import os
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Part:
    """Bytes start..end-1 of a file, which are decoded on their own."""

    start: int
    end: int
    damaged: bool = False
    """Something within is missing or damaged."""
    cut_off: bool = False
    """The end is missing or damaged."""


def section(file: BinaryIO, start: int, end: int) -> BinaryIO:
    """Bytes start..end-1 of a seekable binary file; reading moves that file's position."""
    return io.BufferedReader(_Section(file, start, end))


def patched(file: BinaryIO, offset: int, patch: bytes) -> BinaryIO:
    """A seekable binary file with `patch` in place of its bytes from `offset` on; reading moves its position."""
    return io.BufferedReader(_Patched(file, offset, patch))


class _Section(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._size = file, start, max(0, end - start)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), self._size)  # libsndfile seeks anywhere where sizes are wrong
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Patched(_Section):
    def __init__(self, file: BinaryIO, offset: int, patch: bytes) -> None:
        super().__init__(file, 0, file.seek(0, os.SEEK_END))
        self._offset, self._patch = offset, patch

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        first, view = self._position, memoryview(buffer)
        count = super().readinto(view)
        for index, value in enumerate(self._patch, self._offset - first):
            if 0 <= index < count:
                view[index] = value
        return count
