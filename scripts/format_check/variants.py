"""The variants of an encoded file: whole, cut, joined to another, and with junk before or after."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

JUNK_BYTES = 3000
CUT = 0.6
JOINED = "joined"

_junk = np.random.default_rng(1).bytes(JUNK_BYTES)

VARIANTS: Mapping[str, Callable[[bytes, bytes], bytes]] = {
    "whole": lambda data, other: data,
    "cut": lambda data, other: data[: int(CUT * len(data))],
    JOINED: lambda data, other: data + other,
    "junk before": lambda data, other: _junk + data,
    "junk after": lambda data, other: data + _junk,
}
"""The bytes of each variant, from those of a file and of another with other rate and channels."""


def write(variant: str, file: Path, other: Path, out: Path) -> Path:
    """Write a variant of `file` to `out`."""
    out.write_bytes(VARIANTS[variant](file.read_bytes(), other.read_bytes() if variant == JOINED else b""))
    return out
