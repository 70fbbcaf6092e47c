"""CTranslate2's `model.bin`, format version 6, float16, bfloat16 or float32.

    u32 version, string spec name, u32 revision, u32 count
    count times: string name, u8 rank, rank u32 dimensions, u8 dtype, u32 bytes, data
    u32 count of aliases, each two strings

All numbers are little-endian; a string is a u16 length and that many bytes, the last a zero. Query, key and value
projections are one tensor, stacked by rows; the stacked bias has zeros for the key, which has no bias. `config.json`
beside it has the generation config, `tokenizer.json` the tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tilewhisper.models.checkpoint.catalog import Dims
from tilewhisper.models.checkpoint.formats import Weights
from tilewhisper.models.checkpoint.formats.binary import Cursor, contents
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.generation_config import MAX_INITIAL_TIMESTAMP_INDEX, GenerationConfig, derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_VERSION = 6
_DTYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)

ROOT_NAMES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/position_encodings": "encoder.embed_positions",
    "encoder/layer_norm": "encoder.layer_norm",
    "decoder/embeddings": "decoder.embed_tokens",
    "decoder/position_encodings": "decoder.embed_positions",
    "decoder/layer_norm": "decoder.layer_norm",
}
# A tensor stacked from several modules has several names.
LAYER_NAMES = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
_PARAMETERS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}


def read(source: Source) -> Weights:
    """Read `model.bin` (or its parts) and the JSON files beside it. Raises CheckpointError."""
    variables = _variables(Cursor(contents(source.files), source.name), source.name)
    scalars = {name: int(tensor) for name, tensor in variables.items() if tensor.ndim == 0}
    try:
        heads = scalars["encoder/num_heads"]
    except KeyError as error:
        raise CheckpointError(
            f"{source.name}: model.bin has no encoder/num_heads; convert it again with a current CTranslate2"
        ) from error
    state: dict[str, torch.Tensor] = {}
    for name, tensor in variables.items():
        if tensor.ndim:
            state |= _renamed(name, tensor, source.name)
    dims = dims_of(state, heads, source.name)
    tokenizer = vocabulary.from_file(source.folder / "tokenizer.json", n_vocab=dims[-1])
    return Weights(model_config(state, dims), state, tokenizer, _generation_config(source.folder, tokenizer, dims))


def _variables(cursor: Cursor, name: str) -> dict[str, torch.Tensor]:
    (version,) = cursor.unpack("I")
    if version != _VERSION:
        raise CheckpointError(
            f"{name}: CTranslate2 format version {version}, only {_VERSION} is supported; convert the model again"
        )
    spec = _string(cursor)
    if spec != "WhisperSpec":
        raise CheckpointError(f"{name}: a CTranslate2 model of another kind ({spec}); expected a WhisperSpec")
    _revision, count = cursor.unpack("II")
    variables = dict(_variable(cursor, name) for _ in range(count))
    # Aliases list shared tensors; in Whisper they are always the output projection and the embedding.
    (aliases,) = cursor.unpack("I")
    for _ in range(2 * aliases):
        _string(cursor)
    return variables


def _variable(cursor: Cursor, file: str) -> tuple[str, torch.Tensor]:
    name = _string(cursor)
    (rank,) = cursor.unpack("B")
    shape = cursor.unpack(f"{rank}I")
    code, size = cursor.unpack("BI")
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise CheckpointError(
            f"{file}: {name} has the unknown dtype number {code}: the file is corrupt or too new; convert it again"
        )
    if rank and dtype not in _FLOATS:
        kind = str(dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{file}: quantised to {kind} ({name}); expected float16, bfloat16 or float32: "
            "convert it with --quantization float16"
        )
    tensor = cursor.tensor(dtype, shape)
    if tensor.nbytes != size:
        raise CheckpointError(
            f"{file}: {name} states {size} bytes, but its shape needs {tensor.nbytes}: the file is corrupt; "
            "download it again"
        )
    # Converted right away, so that only one tensor at a time is in memory in both precisions.
    return name, tensor.to(torch.float32) if rank else tensor


def _string(cursor: Cursor) -> str:
    (length,) = cursor.unpack("H")
    return cursor.name(length)


def _renamed(name: str, tensor: torch.Tensor, file: str) -> dict[str, torch.Tensor]:
    """Map transformers' name to the tensor, or, for a stacked tensor, each name to its rows."""
    module, _, parameter = name.rpartition("/")
    parameter = _PARAMETERS.get(parameter, parameter)
    if module in ROOT_NAMES:
        return {f"model.{ROOT_NAMES[module]}.{parameter}": tensor}
    side, _, rest = module.partition("/layer_")
    index, _, leaf = rest.partition("/")
    if leaf not in LAYER_NAMES:
        raise CheckpointError(f"{file}: unexpected tensor {name}: not a Whisper model; convert it from Whisper weights")
    names = LAYER_NAMES[leaf]
    parts = zip(names, tensor.chunk(len(names)), strict=False)  # `modules.build` reports wrong sizes
    return {
        f"model.{side}.layers.{index}.{target}.{parameter}": part.contiguous()
        for target, part in parts
        if not (parameter == "bias" and target.endswith("k_proj"))
    }


def _generation_config(folder: Path, tokenizer: Tokenizer, dims: Dims) -> GenerationConfig:
    """The settings in `config.json`; missing ones are derived."""
    derived = derive(tokenizer, dims)
    try:
        stored: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        return derived
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: not valid JSON ({error}); download it again") from error
    return GenerationConfig(
        suppress_tokens=tuple(stored.get("suppress_ids", derived.suppress_tokens)),
        begin_suppress_tokens=tuple(stored.get("suppress_ids_begin", derived.begin_suppress_tokens)),
        alignment_heads=tuple((layer, head) for layer, head in stored.get("alignment_heads", derived.alignment_heads)),
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
    )
