"""A spill buffer: float32 rows that stay in memory while they are few and move to a temporary file when they grow.

The file has no name and vanishes with the buffer. It is created in `tempfile.gettempdir()`, which TMPDIR sets. It is
read and written, never mapped, because mapped pages would count as the process's memory again.
"""

import math
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

from tilewhisper.models.errors import AudioError

MEMORY_BYTES = 12 * 2**20  # six minutes of log-mel with 80 bands, or three minutes of samples
ITEM_BYTES = 4


class SpillBuffer:
    """Append-only rows of one shape with random read access; the rows of `SpillBuffer()` are single numbers."""

    def __init__(self, *row_shape: int) -> None:
        self._row_shape = row_shape
        self._row_bytes = ITEM_BYTES * math.prod(row_shape)
        self._rows = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 (closed by the finalizer)
        weakref.finalize(self, _discard, self._file)

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Append `rows`, (n, *row_shape). Raises `AudioError` when the temporary file cannot be written."""
        with writing_temporary():
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data.cast("B"))
            self._file.flush()  # a full disk must not be noticed first by the seek of `read`
        self._rows += len(rows)

    def read(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Copy rows first..last-1 as (n, *row_shape); rows past the end are left out."""
        count = max(0, min(last, self._rows) - first)
        rows = np.empty((count, *self._row_shape), dtype=np.float32)
        if rows.size:
            self._file.seek(first * self._row_bytes)
            self._file.readinto(rows.data.cast("B"))
        return rows


@contextmanager
def writing_temporary() -> Iterator[None]:
    """Turn an OSError of a temporary file inside into an `AudioError`."""
    try:
        yield
    except OSError as error:
        raise AudioError(
            f"long audio needs a temporary file, and writing it to {_folder()} failed ({error.strerror or error}); "
            "free some space there, or set TMPDIR to a folder with free space (0.2 GB per hour of audio)"
        ) from error


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # no usable temporary folder
        return "the temporary folder"


def _discard(file: "tempfile.SpooledTemporaryFile[bytes]") -> None:
    with suppress(OSError):  # on a full disk, which was reported, closing writes the rest once more
        file.close()
