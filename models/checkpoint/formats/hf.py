"""A transformers folder.

`config.json`, `model.safetensors` or `pytorch_model.bin` (whole or sharded), `tokenizer.json` or `vocab.json`, and
optionally `generation_config.json`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.formats import Weights, torch_files
from tilewhisper.models.checkpoint.generation_config import MAX_INITIAL_TIMESTAMP_INDEX, GenerationConfig, derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


def read(source: Source) -> Weights:
    """Read a transformers folder. Raises CheckpointError."""
    folder = source.folder
    config = _config(folder / "config.json")
    state = tensors(source)
    tokenizer = _tokenizer(folder, config.vocab_size)
    return Weights(config, state, tokenizer, _generation_config(folder, config, tokenizer))


def tensors(source: Source) -> dict[str, torch.Tensor]:
    """Only the tensors of a transformers folder. Raises CheckpointError."""
    state = {_full_name(name): tensor for name, tensor in _tensors(source.files[0]).items()}
    state.pop("proj_out.weight", None)  # tied to the embedding
    return state


def _config(path: Path) -> ModelConfig:
    stored = _json(path)
    names = [field.name for field in fields(ModelConfig)]
    if wrong := [name for name in names if type(stored.get(name)) is not int or stored[name] < 1]:
        raise CheckpointError(
            f"{path}: not a Whisper configuration: {wrong[0]} must be a whole number >= 1, got "
            f"{stored.get(wrong[0])!r}; copy the checkpoint's config.json there"
        )
    config = ModelConfig(**{name: stored[name] for name in names})
    for heads in (config.encoder_attention_heads, config.decoder_attention_heads):
        if config.d_model % heads:
            raise CheckpointError(
                f"{path}: not a Whisper configuration: {heads} heads do not divide d_model = {config.d_model}; "
                "copy the checkpoint's config.json there"
            )
    return config


def _full_name(name: str) -> str:
    """Add the prefix that a bare WhisperModel is saved without."""
    return f"model.{name}" if name.startswith(("encoder.", "decoder.")) else name


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.name.endswith(".index.json"):
        shards = sorted(set(_json(path).get("weight_map", {}).values()))
        return {name: tensor for shard in shards for name, tensor in _tensors(path.with_name(shard)).items()}
    if path.suffix == ".safetensors":
        return torch_files.safetensors(path)
    tensors, mapped = torch_files.pickled(path)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: not tensors by name; expected Whisper's weights")
    return torch_files.parameters(tensors, path, mapped=mapped)


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: not a JSON object, got {type(stored).__name__}; download it again")
    return stored


def _tokenizer(folder: Path, n_vocab: int) -> Tokenizer:
    bare = folder / "vocab.json"
    if not (folder / "tokenizer.json").exists() and bare.exists():
        return vocabulary.build(vocabulary.text_tokens(bare), n_vocab)
    return vocabulary.from_file(folder / "tokenizer.json", n_vocab)


def _generation_config(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> GenerationConfig:
    path = folder / "generation_config.json"
    stored = _json(path) if path.exists() else {}
    no_timestamps = stored.get("no_timestamps_token_id", tokenizer.no_timestamps)
    if no_timestamps != tokenizer.no_timestamps:
        raise CheckpointError(
            f"{folder}: its tokenizer has <|notimestamps|> at {tokenizer.no_timestamps} and generation_config.json at "
            f"{no_timestamps}: they do not belong together; take both from the same checkpoint"
        )
    derived = derive(tokenizer, config.dims, folder.name.removeprefix("whisper-"))
    heads = stored.get("alignment_heads") or derived.alignment_heads
    return GenerationConfig(
        suppress_tokens=_ids(stored.get("suppress_tokens"), derived.suppress_tokens),
        begin_suppress_tokens=_ids(stored.get("begin_suppress_tokens"), derived.begin_suppress_tokens),
        alignment_heads=tuple((layer, head) for layer, head in heads),
        max_initial_timestamp_index=stored.get("max_initial_timestamp_index", MAX_INITIAL_TIMESTAMP_INDEX),
    )


def _ids(stored: list[int] | None, derived: tuple[int, ...]) -> tuple[int, ...]:
    """The stored ids; an empty list suppresses nothing, a missing list gives the derived ids."""
    return derived if stored is None else tuple(stored)
