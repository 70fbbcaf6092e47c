"""Weight formats: a table of readers, and the record that each of them returns.

A reader is a module with `read(source) -> Weights` and `tensors(source)`. It renames the tensors to transformers'
names. Matrices stay in the file (stored_tensor.py), vectors are loaded. `modules.py` builds the model and checks it.
To add a format, write one module, add one line to `READERS`, and let `locate.py` detect its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tilewhisper.models.checkpoint.config import ModelConfig
    from tilewhisper.models.checkpoint.generation_config import GenerationConfig
    from tilewhisper.models.checkpoint.locate import Source
    from tilewhisper.models.tokenizer.tokenizer import Tokenizer

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
    return weights


def tensors(source: Source) -> Mapping[str, torch.Tensor]:
    """Only the tensors of a checkpoint that was read before, as in `Weights.state`. Raises CheckpointError."""
    found: Mapping[str, torch.Tensor] = import_module(READERS[source.kind]).tensors(source)
    return found
