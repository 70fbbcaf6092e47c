"""OpenAI's own `.pt`: a pickled {"dims": {…}, "model_state_dict": {…}}.

Read with `weights_only=True`, so that no code inside the file ever runs. It carries no vocabulary and no generation
generation_config: the one is looked for (`vocabulary.find`), the others follow from it (`generation_config.derive`).
"""

from __future__ import annotations

from typing import Any

import torch

from tilewhisper.models.checkpoint.formats import Weights
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.formats.openai_names import renamed
from tilewhisper.models.checkpoint.generation_config import derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary


def read(source: Source) -> Weights:
    """Read a `.pt`. Raises CheckpointError."""
    (path,) = source.files
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle or archive raises whatever its bytes happen to mean
        raise CheckpointError(
            f"{source.name}: not readable as a PyTorch file of plain tensors ({type(error).__name__}): it is "
            "incomplete or corrupt, or holds other objects; fetch it again"
        ) from error
    try:
        heads = int(stored["dims"]["n_audio_head"])
        tensors = dict(stored["model_state_dict"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{source.name}: a PyTorch file, but no Whisper model of OpenAI's: expected dims and model_state_dict in it"
        ) from error
    state = renamed(tensors, source.name)
    dims = dims_of(state, heads, source.name)
    tokenizer = vocabulary.find(source.folder, n_vocab=dims[-1])
    return Weights(model_config(state, dims), state, tokenizer, derive(tokenizer, dims, path.stem))
