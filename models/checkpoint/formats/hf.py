"""A transformers folder.

`config.json`, `model.safetensors` or `pytorch_model.bin` (whole or sharded), `tokenizer.json` or `vocab.json`, and
optionally `generation_config.json`.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import torch

from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.formats import Weights, settings, torch_files
from tilewhisper.models.checkpoint.generation_config import GenerationConfig, derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.json_file import read_object
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_MAX_SIZE = 1 << 20
"""Of any dimension, and number of layers."""


def read(source: Source) -> Weights:
    """Read a transformers folder. Raises CheckpointError."""
    folder = source.folder
    config = _config(folder / "config.json")
    state = tensors(source)
    if config.encoder_layers + config.decoder_layers > len(state):
        raise CheckpointError(
            f"{folder}: config.json states {config.encoder_layers} and {config.decoder_layers} layers, and the weights "
            f"have {len(state)} tensors; take both from the same checkpoint"
        )
    tokenizer = _tokenizer(folder, config.vocab_size)
    config = replace(config, vocab_size=tokenizer.n_vocab)
    return Weights(config, state, tokenizer, _generation_config(folder, config, tokenizer))


def tensors(source: Source) -> dict[str, torch.Tensor]:
    """Only the tensors of a transformers folder. Raises CheckpointError."""
    state = {_full_name(name): tensor for name, tensor in _tensors(source.files[0]).items()}
    state.pop("proj_out.weight", None)  # tied to the embedding
    return state


def _config(path: Path) -> ModelConfig:
    stored = read_object(path)
    names = [field.name for field in fields(ModelConfig)]
    if wrong := [name for name in names if type(stored.get(name)) is not int or not 1 <= stored[name] <= _MAX_SIZE]:
        raise CheckpointError(
            f"{path}: not a Whisper configuration: {wrong[0]} must be a whole number from 1 to {_MAX_SIZE}, got "
            f"{str(stored.get(wrong[0]))[:40]}; copy the checkpoint's config.json there"
        )
    expected = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
    for name, value in expected.items():
        if stored.get(name, value) != value:
            raise CheckpointError(
                f"{path}: {name} is {str(stored[name])[:40]}, not {value} as in Whisper: such models are not supported"
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
        return {name: tensor for shard in _shards(path) for name, tensor in _tensors(shard).items()}
    if path.suffix == ".safetensors":
        return torch_files.safetensors(path)
    tensors, mapped = torch_files.pickled(path)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: not tensors by name; expected Whisper's weights")
    return torch_files.parameters(tensors, path, mapped=mapped)


def _shards(index: Path) -> list[Path]:
    files = read_object(index).get("weight_map")
    names = set(map(str, files.values())) if isinstance(files, dict) else set()
    if not names or not all(re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name) for name in names):
        raise CheckpointError(f"{index}: weight_map must give each tensor a file of this folder; download it again")
    return [index.with_name(name) for name in sorted(names)]


def _tokenizer(folder: Path, n_vocab: int) -> Tokenizer:
    bare, added = folder / "vocab.json", folder / "added_tokens.json"
    if not (folder / "tokenizer.json").exists() and bare.exists():
        last_special = read_object(added).get("<|notimestamps|>") if added.exists() else None
        if isinstance(last_special, int):  # the weights may have more tokens, added by a fine-tuning
            n_vocab = min(n_vocab, last_special + 1 + TIMESTAMPS)
        return vocabulary.build(vocabulary.text_tokens(bare), n_vocab)
    return vocabulary.from_file(folder / "tokenizer.json", n_vocab)


def _generation_config(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> GenerationConfig:
    path = folder / "generation_config.json"
    stored = read_object(path) if path.exists() else {}
    no_timestamps = stored.get("no_timestamps_token_id", tokenizer.no_timestamps)
    if no_timestamps != tokenizer.no_timestamps:
        raise CheckpointError(
            f"{folder}: its tokenizer has <|notimestamps|> at {tokenizer.no_timestamps} and generation_config.json at "
            f"{no_timestamps}: they do not belong together; take both from the same checkpoint"
        )
    derived = derive(tokenizer, config.dims, folder.name)
    names = ("suppress_tokens", "begin_suppress_tokens")
    decoder = (config.decoder_layers, config.decoder_attention_heads)
    return settings.checked(stored, names, derived, tokenizer, decoder, path)
