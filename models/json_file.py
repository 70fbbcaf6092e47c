"""Read the JSON files beside a checkpoint, which may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilewhisper.models.errors import CheckpointError

MAX_BYTES = 32 << 20
"""A tokenizer takes 4 MB; JSON in memory takes up to 40 times the size of its file."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise CheckpointError(f"{path}: {size >> 20} MB, allowed are {MAX_BYTES >> 20}; download it again")
        stored = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); download it again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: not a JSON object, got {type(stored).__name__}; download it again")
    return stored
