"""Load a checkpoint of any supported format: modules with weights, tokenizer, generation config.

The modules are in evaluation mode, without gradients; their matrices stay in the file (see stored_tensor.py).
`locate.py` finds the files, `formats/` reads them, and `cache.py` caches the result for later starts.
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
from tilewhisper.models.checkpoint.packed_weights import PackedWeights
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

__all__ = ["Checkpoint", "GenerationConfig", "load"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. `name` is the official name, hub id or path that the user passed."""

    name: str
    source: Source
    model: Whisper
    tokenizer: Tokenizer
    generation_config: GenerationConfig
    packed: PackedWeights | None = None
    """Where backends find weights that an earlier start packed, and store those that they pack; None: nowhere."""


def load(name_or_path: str | Path | Source) -> Checkpoint:
    """Find, verify, read and build a checkpoint.

    Raises ModelNotFound for an unknown or unavailable name or path, CheckpointError for weights that are corrupt,
    incomplete, not Whisper's, or have another hash than the known file of that name.
    """
    return read(locate(name_or_path))


def read(source: Source) -> Checkpoint:
    """Verify, read and build a located checkpoint. Raises CheckpointError."""
    _verify(source)
    weights = formats.read(source)
    model = modules.build(weights.config, weights.state, source.name)
    return Checkpoint(source.name, source, model, weights.tokenizer, weights.generation_config)


def _verify(source: Source) -> None:
    """Compare the files with their known hash, if there is one."""
    if source.sha256 is None:
        return
    digest = hashlib.sha256()
    for file in source.files:
        digest.update(contents(file))
    found = digest.hexdigest()
    if found != source.sha256:
        raise CheckpointError(
            f"{' + '.join(str(file) for file in source.files)}: not the known file of this name "
            f"(SHA-256 {found[:12]}…, expected {source.sha256[:12]}…): {source.remedy}"
        )
