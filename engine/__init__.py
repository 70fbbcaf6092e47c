"""From audio files to transcripts: load, route, encode, decode, write, report."""

from typing import Any

import tilewhisper


def __getattr__(name: str) -> Any:
    """The public names of `tilewhisper`, which were imported from here before they moved."""
    if name not in tilewhisper.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(tilewhisper, name)
