"""A loaded checkpoint as whisper.cpp's ggml `.bin` in q8_0; the layout is described at its reader, `models.formats`.

As whisper.cpp's own quantiser has it: matrices are q8_0, convolutions float16, all else float32.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from tilewhisper.models import vocabulary
from tilewhisper.models.checkpoint import Checkpoint
from tilewhisper.models.log_mel import mel_filters

_MAGIC = 0x67676D6C
_F32, _F16, _Q8_0 = 0, 1, 8  # types of a tensor
_MOSTLY_Q8_0 = 7  # type of a file
_BLOCK = 32

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


def write(checkpoint: Checkpoint, path: Path) -> None:
    """`checkpoint` must come from a folder with a `tokenizer.json`."""
    tokens = vocabulary.text_tokens(checkpoint.source.folder / "tokenizer.json")
    filters = mel_filters(checkpoint.model.config.num_mel_bins).float().contiguous()
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", _MAGIC, *_sizes(checkpoint), _MOSTLY_Q8_0))
        file.write(struct.pack("<2i", *filters.shape) + filters.numpy().tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<I", len(token)) + token)
        for name, tensor in _tensors(checkpoint):
            _write_tensor(file, name, tensor)


def _sizes(checkpoint: Checkpoint) -> tuple[int, ...]:
    config = checkpoint.model.config
    width, heads = config.d_model, config.encoder_attention_heads
    audio = (config.max_source_positions, width, heads, config.encoder_layers)
    text = (config.max_target_positions, width, heads, config.decoder_layers)
    return (config.vocab_size, *audio, *text, config.num_mel_bins)


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in checkpoint.model.model.state_dict().items():
        side, _, rest = name.partition(".layers.")
        if not rest:
            yield _ROOT.get(name, name), tensor  # the convolutions' names are the same
            continue
        index, _, leaf = rest.partition(".")
        module, _, parameter = leaf.rpartition(".")
        yield f"{side}.blocks.{index}.{_MODULES[module]}.{parameter}", tensor


def _write_tensor(file: IO[bytes], name: str, tensor: Tensor) -> None:
    kind = {3: _F16, 2: _Q8_0}.get(tensor.ndim, _F32)
    if name.endswith("positional_embedding"):
        kind = _F32
    elif name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]  # a column
    raw = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(raw), kind))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)) + raw)
    file.write(_q8_0(tensor) if kind == _Q8_0 else _bytes(tensor.to(torch.float16 if kind == _F16 else torch.float32)))


def _q8_0(tensor: Tensor) -> bytes:
    """Blocks of 32: a float16 scale, the largest magnitude / 127, and 32 int8."""
    blocks = tensor.float().reshape(-1, _BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, 0).round().to(torch.int8)
    return _bytes(torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], dim=1))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
