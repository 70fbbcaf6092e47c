"""Sizes and tensor names of a checkpoint in OpenAI's layout, which its `.pt` and whisper.cpp's ggml share."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.loader import Checkpoint

_MODULES = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
_ROOT = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}


def sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """The model's sizes by their names in a `.pt`, in ggml's order."""
    config = checkpoint.model.config
    width, heads = config.d_model, config.encoder_attention_heads
    return {
        "n_vocab": config.vocab_size,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": config.decoder_layers,
        "n_mels": config.num_mel_bins,
    }


def tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor with its name in OpenAI's layout."""
    for name, tensor in checkpoint.model.model.state_dict().items():
        side, _, rest = name.partition(".layers.")
        if not rest:
            yield _ROOT.get(name, name), tensor  # the convolutions have the same names
            continue
        index, _, leaf = rest.partition(".")
        module, _, parameter = leaf.rpartition(".")
        yield f"{side}.blocks.{index}.{_MODULES[module]}.{parameter}", tensor


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a float32 `.pt` for `whisper.load_model`."""
    torch.save({"dims": sizes(checkpoint), "model_state_dict": dict(tensors(checkpoint))}, path)
