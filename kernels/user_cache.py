"""The folder in which compiled kernels are kept for the user between runs."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """`~/.cache/tilewhisper/<name>`; for a user without a home, a path that cannot be created, so nothing is kept."""
    try:
        return Path("~/.cache/tilewhisper", name).expanduser()
    except RuntimeError:
        return Path(os.devnull, name)
