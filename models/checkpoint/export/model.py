"""A checkpoint as the writers see it: its parameters are read one at a time, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.constants import TIMESTAMPS

OnRead = Callable[[int, int], None]
"""Called after each parameter with the values read so far and those of the whole model."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precisions without quantisation, by their names."""


class ExportedModel:
    """A checkpoint whose parameters are read one at a time, with transformers' names."""

    def __init__(self, checkpoint: Checkpoint, on_read: OnRead | None = None) -> None:
        self.config = checkpoint.model.config
        self.tokenizer = checkpoint.tokenizer
        self.generation_config = checkpoint.generation_config
        self.name = _short_name(checkpoint)
        self._state = checkpoint.model.model.state_dict()
        self._on_read = on_read
        self._total = sum(tensor.numel() for tensor in self._state.values())
        self._unread = set(self._state)
        self._done = 0

    def __contains__(self, name: str) -> bool:
        return name in self._state

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters, such as "encoder.conv1.weight"."""
        return tuple(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def read(self, name: str) -> Tensor:
        """One parameter as float32."""
        values = whole(self._state[name])
        if name in self._unread:
            self._unread.remove(name)
            self._done += values.numel()
            if self._on_read:
                self._on_read(self._done, self._total)
        return values

    def tokens(self) -> list[str]:
        """The content of each token by its id, for all rows of the embedding; rows without a token get a name."""
        contents = {token: content for content, token in self.tokenizer.vocabulary.items()}
        first = self.tokenizer.timestamp_begin
        contents |= {first + step: f"<|{step * 0.02:.2f}|>" for step in range(TIMESTAMPS)}
        return [contents.get(token, f"<|unused{token}|>") for token in range(self.config.vocab_size)]


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def _short_name(checkpoint: Checkpoint) -> str:
    """The model's name in file names: "tiny.en" of tiny.en, openai/whisper-tiny.en and x/ggml-tiny.en-q5_0.bin."""
    source = checkpoint.source
    path = Path(source.name)
    if source.kind in ("ctranslate2", "hf") and path.exists():
        path = source.folder.resolve()
    return catalog.short_name(path.name)
