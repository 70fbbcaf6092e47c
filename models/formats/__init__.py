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

    from tilewhisper.models.config import ModelConfig
    from tilewhisper.models.facts import GenerationFacts
    from tilewhisper.models.locate import Source
    from tilewhisper.models.tokenizer import Tokenizer

READERS: Mapping[str, str] = {
    "hf": "tilewhisper.models.formats.hf",
    "ctranslate2": "tilewhisper.models.formats.ctranslate2",
    "openai": "tilewhisper.models.formats.openai",
    "ggml": "tilewhisper.models.formats.ggml",
}


@dataclass(frozen=True)
class Weights:
    """A checkpoint read into memory. `state` holds float32 tensors under transformers' names, without the output
    projection, which is the token embedding."""

    config: ModelConfig
    state: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    facts: GenerationFacts


def read(source: Source) -> Weights:
    """Read the source with its kind's reader. Raises CheckpointError."""
    weights: Weights = import_module(READERS[source.kind]).read(source)
    return weights
