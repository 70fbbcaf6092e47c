"""Give freed memory back to the system."""

import ctypes
import sys
from functools import cache
from typing import Any


def release_freed() -> None:
    """Give back what was freed between memory that is in use; malloc keeps it otherwise. Does nothing without glibc.

    Encodings allocate many sizes, and what lives longer leaves gaps that the next ones do not fit: in batches of 8,
    150 MB after ten minutes (base). A call takes some milliseconds, so it pays after an encoding, not after a step.
    """
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
