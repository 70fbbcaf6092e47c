"""Weight formats: a table of readers, and the one record all of them return.

A reader is a module with `read(source) -> Weights`. It renames tensors to transformers' names and leaves their values
as they are (as float32). It builds no model: `modules.py` does, and checks the tensors while doing so.
To add a format: one module, one line in `READERS`, and the signs by which `locate.py` knows its files.
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
    """A checkpoint read into memory. `state` holds float32 tensors under transformers' names, without the output
    projection, which is the token embedding."""

    config: ModelConfig
    state: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    generation_config: GenerationConfig


def read(source: Source) -> Weights:
    """Read the source with its kind's reader. Raises CheckpointError."""
    weights: Weights = import_module(READERS[source.kind]).read(source)
    return weights
