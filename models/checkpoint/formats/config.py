"""Derive a model's configuration from the shapes of its tensors, for formats that store none."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tilewhisper.models.checkpoint.catalog import Dims
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.errors import CheckpointError


def dims_of(state: Mapping[str, torch.Tensor], heads: int, name: str) -> Dims:
    """The dimensions of these tensors; the number of heads is passed in, since shapes do not show it.

    Raises CheckpointError, with the file's `name`, when the embeddings or conv1 are missing.
    """
    try:
        n_vocab, d_model = state["model.decoder.embed_tokens.weight"].shape
        n_mels = state["model.encoder.conv1.weight"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{name}: these are not Whisper's weights: expected token embeddings and conv1; pass a Whisper checkpoint"
        ) from error
    if heads < 1 or d_model % heads:
        raise CheckpointError(
            f"{name}: {heads} heads do not divide d_model = {d_model}: the file is corrupt; download it again"
        )
    return (d_model, _layers(state, "encoder"), _layers(state, "decoder"), heads, n_mels, n_vocab)


def _layers(state: Mapping[str, torch.Tensor], side: str) -> int:
    return sum(name.startswith(f"model.{side}.layers.") and name.endswith(".fc1.weight") for name in state)


def model_config(state: Mapping[str, torch.Tensor], dims: Dims) -> ModelConfig:
    """The configuration of a checkpoint that stores none. Raises CheckpointError when tensors are missing."""
    d_model, encoder_layers, decoder_layers, heads, n_mels, n_vocab = dims

    def rows(name: str) -> int:
        if name not in state:
            raise CheckpointError(f"these weights are incomplete: missing {name}; download them again")
        return state[name].shape[0]

    return ModelConfig(
        vocab_size=n_vocab,
        num_mel_bins=n_mels,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=rows("model.encoder.layers.0.fc1.weight"),
        decoder_ffn_dim=rows("model.decoder.layers.0.fc1.weight"),
        max_source_positions=rows("model.encoder.embed_positions.weight"),
        max_target_positions=rows("model.decoder.embed_positions.weight"),
    )
