"""Write a transformers folder: weights, configurations, tokenizer, preprocessor. The library is not needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.export import json_files, safetensors
from tilewhisper.models.checkpoint.export.model import DTYPES, ExportedModel
from tilewhisper.models.checkpoint.generation_config import GenerationConfig
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write a folder for `WhisperForConditionalGeneration.from_pretrained` and for pipelines."""
    safetensors.write(model, folder, DTYPES[precision])
    write_settings(model, folder, precision)


def write_settings(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write everything but the weights."""
    json_files.write(folder / "config.json", _config(model, precision))
    settings = generation_config(model.config, model.tokenizer, model.generation_config)
    json_files.write(folder / "generation_config.json", settings)
    json_files.write_tokenizer(model, folder)
    json_files.write(folder / "tokenizer_config.json", _tokenizer_config())
    json_files.write_preprocessor(model, folder)


def token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that transformers' configurations share, by their names there."""
    eot = tokenizer.eot
    return {"bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot, "decoder_start_token_id": tokenizer.sot}


def generation_config(config: ModelConfig, tokenizer: Tokenizer, settings: GenerationConfig) -> dict[str, Any]:
    """The fields of transformers' GenerationConfig, which `generate` needs."""
    languages = {
        "lang_to_id": {f"<|{code}|>": token for code, token in tokenizer.languages.items()},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    }
    return {
        **token_ids(tokenizer),
        "prev_sot_token_id": tokenizer.sot_prev,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "is_multilingual": tokenizer.is_multilingual,
        "suppress_tokens": list(settings.suppress_tokens),
        "begin_suppress_tokens": list(settings.begin_suppress_tokens),
        "alignment_heads": [list(pair) for pair in settings.alignment_heads],
        "max_initial_timestamp_index": settings.max_initial_timestamp_index,
        "max_length": config.max_target_positions,
        "return_timestamps": False,
        **(languages if tokenizer.is_multilingual else {}),
    }


def _config(model: ExportedModel, precision: str) -> dict[str, Any]:
    return {
        **asdict(model.config),
        **token_ids(model.tokenizer),
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "activation_function": "gelu",
        "is_encoder_decoder": True,
        "num_hidden_layers": model.config.encoder_layers,
        "scale_embedding": False,
        "torch_dtype": precision,
    }


def _tokenizer_config() -> dict[str, Any]:
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end),
    }
