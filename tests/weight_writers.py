"""Write a loaded checkpoint in the formats that the readers support, for tests.

The tensor names are spelled out from the other projects' side, independently of the readers, so that a reader that
swaps two names fails its test. Each function says which other engine loads its files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.mel_filters import mel_filters
from tilewhisper.models.tokenizer import vocabulary

_HEADER = {"f32": 0, "f16": 1, "q8_0": 7}  # ggml's file types
_TENSOR = {"f32": 0, "f16": 1, "q8_0": 8}  # ggml's tensor types


def write_openai(checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write an OpenAI `.pt` of `dtype` tensors; openai-whisper loads it."""
    names = dict(zip(_DIMENSIONS, _dimensions(checkpoint), strict=True))
    state = {name: tensor.to(dtype) for name, tensor in _openai_tensors(checkpoint)}
    torch.save({"dims": names, "model_state_dict": state}, path)
    return path


def write_ggml(checkpoint: Checkpoint, path: Path, kind: str = "f16") -> Path:
    """Write a whisper.cpp `.bin` of `kind` f32, f16 or q8_0; whisper.cpp transcribes with the last two.

    Only matrices have that type: convolutions are f16 instead of q8_0; biases, norms and positions are always f32.
    """
    n_vocab, *others = _reordered(checkpoint)
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", 0x67676D6C, n_vocab, *others, _HEADER[kind]))
        n_mels = others[-1]
        file.write(struct.pack("<2i", n_mels, 201) + _mel_filters(n_mels))
        tokens = vocabulary.text_tokens(checkpoint.source.folder / "tokenizer.json")
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<I", len(token)) + token)
        for name, tensor in _openai_tensors(checkpoint):
            _write_ggml_tensor(file, name, tensor, kind)
    return path


def _mel_filters(n_mels: int) -> bytes:
    """The float32 filters (n_mels, 201) that whisper.cpp reads from the file."""
    return mel_filters(n_mels).contiguous().numpy().tobytes()


def _write_ggml_tensor(file: IO[bytes], name: str, tensor: Tensor, kind: str) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    if tensor.ndim < 2 or name.endswith(("conv1.bias", "conv2.bias", "positional_embedding")):
        kind = "f32"
    elif tensor.ndim == 3 and kind == "q8_0":
        kind = "f16"
    raw = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(raw), _TENSOR[kind]))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)) + raw)
    file.write(q8_0(tensor) if kind == "q8_0" else _bytes(tensor, {"f32": torch.float32, "f16": torch.float16}[kind]))


def q8_0(tensor: Tensor) -> bytes:
    """Quantise to blocks of 32: the scale, largest magnitude / 127 as float16, and 32 int8."""
    blocks = tensor.float().reshape(-1, 32)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, 0).round().to(torch.int8)
    packed = torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], dim=1)
    return packed.contiguous().numpy().tobytes()


def write_ctranslate2(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write a CTranslate2 folder of `dtype` tensors; a packaged folder is reproduced byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    generation_config = checkpoint.generation_config
    config = {
        "alignment_heads": [list(pair) for pair in generation_config.alignment_heads],
        "suppress_ids": list(generation_config.suppress_tokens),
        "suppress_ids_begin": list(generation_config.begin_suppress_tokens),
        "lang_ids": list(checkpoint.tokenizer.languages.values()),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((checkpoint.source.folder / "tokenizer.json").read_bytes())
    heads = checkpoint.model.config.encoder_attention_heads
    scalars: dict[str, tuple[str, int, int]] = {}
    for side in ("encoder", "decoder"):
        scalars[f"{side}/num_heads"] = ("<h", 2, heads)
    scalars["decoder/alignment_heads"], scalars["decoder/alignment_layer"] = ("<h", 2, 1), ("<h", 2, -1)
    for name, value in {"activation": 3, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0}.items():
        scalars[f"decoder/{name}"] = ("<b", 1, value)
    scalars["decoder/start_from_zero_embedding"] = ("<b", 1, 0)
    tensors = dict(ctranslate2_tensors(checkpoint))
    with (folder / "model.bin").open("wb") as file:
        file.write(struct.pack("<I", 6) + _string("WhisperSpec"))
        file.write(struct.pack("<II", 3, len(tensors) + len(scalars)))
        for name in sorted([*tensors, *scalars]):
            if name in scalars:
                layout, code, value = scalars[name]
                shape, data = (), struct.pack(layout, value)
            else:
                shape, data = tuple(tensors[name].shape), _bytes(tensors[name], dtype)
                code = {torch.float32: 0, torch.float16: 4, torch.bfloat16: 5}[dtype]
            file.write(_string(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape))
            file.write(struct.pack("<BI", code, len(data)) + data)
        file.write(struct.pack("<I", 1) + _string("decoder/projection/weight") + _string("decoder/embeddings/weight"))
    return folder


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _bytes(tensor: Tensor, dtype: torch.dtype) -> bytes:
    return tensor.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()


_DIMENSIONS = (
    *("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
    *("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer"),
)


def _dimensions(checkpoint: Checkpoint) -> tuple[int, ...]:
    config = checkpoint.model.config
    heads, width = config.encoder_attention_heads, config.d_model
    audio = (config.num_mel_bins, config.max_source_positions, width, heads, config.encoder_layers)
    return (*audio, config.vocab_size, config.max_target_positions, width, heads, config.decoder_layers)


def _reordered(checkpoint: Checkpoint) -> tuple[int, ...]:
    n_mels, *audio, n_vocab, n_ctx, width, heads, layers = _dimensions(checkpoint)
    return (n_vocab, *audio, n_ctx, width, heads, layers, n_mels)


def _openai_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    state = values(checkpoint)
    yield "decoder.positional_embedding", state["decoder.embed_positions.weight"]
    yield "encoder.positional_embedding", state["encoder.embed_positions.weight"]
    yield "decoder.token_embedding.weight", state["decoder.embed_tokens.weight"]
    for conv in ("encoder.conv1", "encoder.conv2"):
        yield from _both(state, conv, conv)
    yield from _both(state, "encoder.ln_post", "encoder.layer_norm")
    yield from _both(state, "decoder.ln", "decoder.layer_norm")
    for side, layers in _layers(checkpoint):
        for index in range(layers):
            ours, theirs = f"{side}.layers.{index}", f"{side}.blocks.{index}"
            for their, our in [("attn", "self_attn"), ("cross_attn", "encoder_attn")][: 2 if side == "decoder" else 1]:
                for word in ("query", "key", "value", "out"):
                    leaf = "out_proj" if word == "out" else f"{word[0]}_proj"
                    yield from _both(state, f"{theirs}.{their}.{word}", f"{ours}.{our}.{leaf}")
                yield from _both(state, f"{theirs}.{their}_ln", f"{ours}.{our}_layer_norm")
            yield from _both(state, f"{theirs}.mlp.0", f"{ours}.fc1")
            yield from _both(state, f"{theirs}.mlp.2", f"{ours}.fc2")
            yield from _both(state, f"{theirs}.mlp_ln", f"{ours}.final_layer_norm")


def values(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights as ordinary tensors, with transformers' names without the prefix "model."."""
    return {name: whole(weight) for name, weight in checkpoint.model.model.state_dict().items()}


def _both(state: Mapping[str, Tensor], theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    for part in ("weight", "bias"):
        if f"{ours}.{part}" in state:  # the key projection has no bias
            yield f"{theirs}.{part}", state[f"{ours}.{part}"]


def _layers(checkpoint: Checkpoint) -> tuple[tuple[str, int], ...]:
    config = checkpoint.model.config
    return (("encoder", config.encoder_layers), ("decoder", config.decoder_layers))


def ctranslate2_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The weights with CTranslate2's names."""
    state = values(checkpoint)
    for side, layers in _layers(checkpoint):
        yield f"{side}/position_encodings/encodings", state[f"{side}.embed_positions.weight"]
        yield from _norm(state, f"{side}/layer_norm", f"{side}.layer_norm")
        for index in range(layers):
            ours, theirs = f"{side}.layers.{index}", f"{side}/layer_{index}"
            own = f"{ours}.self_attn"
            yield from _stack(state, f"{theirs}/self_attention/linear_0", [f"{own}.{x}_proj" for x in "qkv"])
            yield from _stack(state, f"{theirs}/self_attention/linear_1", [f"{own}.out_proj"])
            yield from _norm(state, f"{theirs}/self_attention/layer_norm", f"{own}_layer_norm")
            if side == "decoder":
                cross = f"{ours}.encoder_attn"
                yield from _stack(state, f"{theirs}/attention/linear_0", [f"{cross}.q_proj"])
                yield from _stack(state, f"{theirs}/attention/linear_1", [f"{cross}.k_proj", f"{cross}.v_proj"])
                yield from _stack(state, f"{theirs}/attention/linear_2", [f"{cross}.out_proj"])
                yield from _norm(state, f"{theirs}/attention/layer_norm", f"{cross}_layer_norm")
            yield from _stack(state, f"{theirs}/ffn/linear_0", [f"{ours}.fc1"])
            yield from _stack(state, f"{theirs}/ffn/linear_1", [f"{ours}.fc2"])
            yield from _norm(state, f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
    yield "decoder/embeddings/weight", state["decoder.embed_tokens.weight"]
    for conv in ("conv1", "conv2"):
        yield from _stack(state, f"encoder/{conv}", [f"encoder.{conv}"])


def _norm(state: Mapping[str, Tensor], theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{theirs}/gamma", state[f"{ours}.weight"]
    yield f"{theirs}/beta", state[f"{ours}.bias"]


def _stack(state: Mapping[str, Tensor], theirs: str, ours: list[str]) -> Iterator[tuple[str, Tensor]]:
    weights = [state[f"{name}.weight"] for name in ours]
    yield f"{theirs}/weight", torch.cat(weights)
    biases = [state.get(f"{name}.bias", torch.zeros(len(w))) for name, w in zip(ours, weights, strict=True)]
    yield f"{theirs}/bias", torch.cat(biases)
