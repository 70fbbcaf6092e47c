"""Weight formats: a table of readers, and the record that each of them returns.

A reader is a module with `read(source) -> Weights` and `tensors(source)`. It renames the tensors to transformers'
names. Matrices stay in the file (stored_tensor.py), vectors are loaded. `modules.py` builds the model and checks it.
To add a format, write one module, add one line to `READERS`, and let `locate.py` detect its files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.stored_tensor import StoredTensor
from tilewhisper.models.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from tilewhisper.models.checkpoint.config import ModelConfig
    from tilewhisper.models.checkpoint.generation_config import GenerationConfig
    from tilewhisper.models.checkpoint.locate import Source
    from tilewhisper.models.tokenizer.tokenizer import Tokenizer

EMBEDDINGS = "model.decoder.embed_tokens.weight"
_log = logging.getLogger(__name__)

READERS: Mapping[str, str] = {
    "hf": "tilewhisper.models.checkpoint.formats.hf",
    "ctranslate2": "tilewhisper.models.checkpoint.formats.ctranslate2",
    "openai": "tilewhisper.models.checkpoint.formats.openai",
    "ggml": "tilewhisper.models.checkpoint.formats.ggml",
}


@dataclass(frozen=True)
class Weights:
    """A checkpoint whose matrices are in its files.

    `state` has float32 tensors with transformers' names, without the output projection, which is the token embedding.
    """

    config: ModelConfig
    state: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    generation_config: GenerationConfig


def read(source: Source) -> Weights:
    """Read a checkpoint with the reader of its kind. Raises CheckpointError."""
    weights: Weights = import_module(READERS[source.kind]).read(source)
    return _without_unknown_tokens(weights, source.name)


def _without_unknown_tokens(weights: Weights, name: str) -> Weights:
    """Leave out the embeddings after the last timestamp, of tokens that a fine-tuning added or of mere padding.

    They are the last rows, and Whisper's rules take every token from the first timestamp on for a timestamp.
    """
    embeddings, known = weights.state.get(EMBEDDINGS), weights.config.vocab_size
    if not isinstance(embeddings, StoredTensor) or len(embeddings) <= known:
        return weights
    if len(embeddings) in {size.n_vocab for size in catalog.SIZES.values()}:
        raise CheckpointError(
            f"{name}: the weights have {len(embeddings)} tokens and the tokenizer has {known}: they do not belong "
            "together; take both from the same checkpoint"
        )
    _log.info("%s: %d tokens after the last timestamp are not used", name, len(embeddings) - known)
    first = StoredTensor(embeddings.stored.part(0, known))
    return replace(weights, state={**weights.state, EMBEDDINGS: first})


def tensors(source: Source) -> Mapping[str, torch.Tensor]:
    """Only the tensors of a checkpoint that was read before, as in `Weights.state`. Raises CheckpointError."""
    found: Mapping[str, torch.Tensor] = import_module(READERS[source.kind]).tensors(source)
    return found
