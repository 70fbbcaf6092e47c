"""Load a checkpoint of any known format: modules with weights, tokenizer, generation config.

The weights are float32, in evaluation mode, without gradients. Where they lie is `locate.py`'s affair, how they are
read that of `formats/`; `cache.py` keeps a copy that later starts are quicker with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.models.checkpoint import formats, modules
from tilewhisper.models.checkpoint.formats.binary import contents
from tilewhisper.models.checkpoint.generation_config import GenerationConfig
from tilewhisper.models.checkpoint.locate import Source, locate
from tilewhisper.models.checkpoint.modules import Whisper
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

__all__ = ["Checkpoint", "GenerationConfig", "load"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. `name` is the official name, hub id or path it was asked for by."""

    name: str
    source: Source
    model: Whisper
    tokenizer: Tokenizer
    generation_config: GenerationConfig
    mapped: bool = False
    """Out of the copy that `cache.py` keeps."""


def load(name_or_path: str | Path) -> Checkpoint:
    """Find, verify, read and build a checkpoint.

    Raises ModelNotFound for a name or path that is not to be had, CheckpointError for weights that are corrupt,
    incomplete, not Whisper's, or not the file their hash is known for.
    """
    return read(locate(name_or_path))


def read(source: Source) -> Checkpoint:
    """Verify, read and build a checkpoint that has been found. Raises CheckpointError."""
    _verify(source)
    weights = formats.read(source)
    model = modules.build(weights.config, weights.state, source.name)
    return Checkpoint(source.name, source, model, weights.tokenizer, weights.generation_config)


def _verify(source: Source) -> None:
    """Check the files against the hash they are known by, if they are."""
    if source.sha256 is None:
        return
    digest = hashlib.sha256()
    for file in source.files:
        digest.update(contents([file]))
    found = digest.hexdigest()
    if found != source.sha256:
        raise CheckpointError(
            f"{' + '.join(str(file) for file in source.files)}: not the known file of this name "
            f"(SHA-256 {found[:12]}…, expected {source.sha256[:12]}…): {source.remedy}"
        )
