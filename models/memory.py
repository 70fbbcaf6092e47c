"""Give memory back to the system that this process need not have."""

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

from torch import Tensor


def release_freed() -> None:
    """Give back what was freed between memory that is in use; malloc keeps it otherwise. Does nothing without glibc.

    Encodings allocate many sizes, and what lives longer leaves gaps that the next ones do not fit: in batches of 8,
    150 MB after ten minutes (base). A call takes some milliseconds, so it pays after an encoding, not after a step.
    """
    if (libc := _libc()) and (trim := getattr(libc, "malloc_trim", None)):
        trim(0)


def release_pages(mapped: Tensor) -> None:
    """Drop the pages of a contiguous mapping of a file to which nothing was written; they are read again on use."""
    if sys.platform == "linux" and (libc := _libc()):
        page = mmap.PAGESIZE
        first, end = mapped.data_ptr() // page * page, -(-(mapped.data_ptr() + mapped.nbytes) // page) * page
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
