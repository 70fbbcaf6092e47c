"""Rows of float32 that may come to more than memory should hold: kept there while they are few, then in a file.

The file has no name and is gone with the spool. It lies in the folder for temporary files (`tempfile.gettempdir()`,
which TMPDIR moves). It is read and written, never mapped: mapped pages would count as memory again.
"""

import math
import tempfile
import weakref

import numpy as np
import numpy.typing as npt

from tilewhisper.models.errors import AudioError

MEMORY_BYTES = 12 * 2**20  # six minutes of log-mel with 80 bands, three of samples
ITEM_BYTES = 4


class Spool:
    """Rows of one shape, appended at the end and read back from anywhere; `Spool()` has single numbers for rows."""

    def __init__(self, *row_shape: int) -> None:
        self._row_shape = row_shape
        self._row_bytes = ITEM_BYTES * math.prod(row_shape)
        self._rows = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 (closed by the finalizer)
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add `rows`, (n, *row_shape). Raises `AudioError` where the disk has no room for them."""
        try:
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data.cast("B"))
        except OSError as error:
            raise AudioError(
                f"long audio is worked on in {_folder()}, which failed ({error.strerror or error}); "
                "make room there, or set TMPDIR to a folder with room (0.2 GB for an hour)"
            ) from error
        self._rows += len(rows)

    def read(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """A copy of rows first..last-1, (n, *row_shape); fewer where there are fewer."""
        count = max(0, min(last, self._rows) - first)
        rows = np.empty((count, *self._row_shape), dtype=np.float32)
        if rows.size:
            self._file.seek(first * self._row_bytes)
            self._file.readinto(rows.data.cast("B"))
        return rows


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # there is none
        return "the folder for temporary files"
