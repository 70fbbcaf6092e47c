"""Map OpenAI's tensor names, used in `.pt` and ggml files, to transformers' names, and back."""

from __future__ import annotations

from collections.abc import Mapping

from tilewhisper.models.errors import CheckpointError

_ROOT_NAMES = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.token_embedding": "decoder.embed_tokens",
    "decoder.ln": "decoder.layer_norm",
}
_POSITIONS = {
    "encoder.positional_embedding": "model.encoder.embed_positions.weight",
    "decoder.positional_embedding": "model.decoder.embed_positions.weight",
}
_BLOCK_NAMES = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}


def renamed(name: str, file: str) -> str:
    """The name in transformers of a tensor. Raises CheckpointError, with the `file`, for an unknown name."""
    if name in _POSITIONS:
        return _POSITIONS[name]
    module, _, parameter = name.rpartition(".")
    if module in _ROOT_NAMES:
        return f"model.{_ROOT_NAMES[module]}.{parameter}"
    side, _, rest = module.partition(".blocks.")
    index, _, leaf = rest.partition(".")
    if leaf not in _BLOCK_NAMES:
        raise CheckpointError(
            f"{file}: unexpected tensor {name}: not a Whisper model in OpenAI's format; pass a Whisper checkpoint"
        )
    return f"model.{side}.layers.{index}.{_BLOCK_NAMES[leaf]}.{parameter}"


def openai_name(name: str) -> str:
    """OpenAI's name of a tensor: "encoder.blocks.0.mlp.0.bias" for "encoder.layers.0.fc1.bias", transformers' name."""
    module, _, parameter = name.rpartition(".")
    if module.endswith("embed_positions"):
        return _theirs(_POSITIONS, f"model.{name}")
    side, layers, rest = module.partition(".layers.")
    if not layers:
        return f"{_theirs(_ROOT_NAMES, module)}.{parameter}"
    index, _, leaf = rest.partition(".")
    return f"{side}.blocks.{index}.{_theirs(_BLOCK_NAMES, leaf)}.{parameter}"


def _theirs(names: Mapping[str, str], ours: str) -> str:
    return next(theirs for theirs, name in names.items() if name == ours)
