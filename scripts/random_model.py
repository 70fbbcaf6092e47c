"""Write a transformers folder with the shapes of an official size and random weights, to measure memory and times."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.formats.tokenizer_search import find_tokenizer
from tilewhisper.models.checkpoint.modules import Whisper

_FFN, _POSITIONS, _TEXT_CONTEXT = 4, 1500, 448


def write(size: str, folder: Path) -> None:
    """Write the weights as float16, one safetensors file a module. Raises KeyError for an unknown size, and
    CheckpointError where no vocabulary is installed."""
    shape = catalog.SIZES[size]
    config = ModelConfig(
        vocab_size=shape.n_vocab,
        num_mel_bins=shape.n_mels,
        d_model=shape.d_model,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=_FFN * shape.d_model,
        decoder_ffn_dim=_FFN * shape.d_model,
        max_source_positions=_POSITIONS,
        max_target_positions=_TEXT_CONTEXT,
    )
    folder.mkdir(parents=True)
    files: dict[str, str] = {}
    random = torch.Generator().manual_seed(0)
    for side in ("encoder", "decoder"):
        _write_side(config, side, folder, files, random)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **asdict(config)}))
    (folder / "tokenizer.json").write_text(find_tokenizer(folder, config.vocab_size).to_json())


def _write_side(config: ModelConfig, side: str, folder: Path, files: dict[str, str], random: torch.Generator) -> None:
    from safetensors.torch import save_file

    shapes = {name: tensor.shape for name, tensor in Whisper(config).state_dict().items() if f"model.{side}." in name}
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, size in shapes.items():
        parts = name.split(".")
        module = ".".join(parts[:4]) if parts[2] == "layers" else f"model.{side}"
        modules.setdefault(module, {})[name] = _values(name, size, random)
    for module, tensors in modules.items():
        save_file(tensors, folder / f"{module}.safetensors")
        files.update(dict.fromkeys(tensors, f"{module}.safetensors"))


def _values(name: str, size: torch.Size, random: torch.Generator) -> torch.Tensor:
    """Of a trained model's magnitude, so that states stay finite."""
    if name.endswith("norm.weight"):
        return torch.ones(size, dtype=torch.float16)
    values: torch.Tensor = torch.randn(size, generator=random) * size[-1] ** -0.5 / 2
    return values.half()
