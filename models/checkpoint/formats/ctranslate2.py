"""CTranslate2's `model.bin`, format version 6, float16, bfloat16 or float32.

    u32 version, string spec name, u32 revision, u32 count
    count times: string name, u8 rank, rank u32 dimensions, u8 dtype, u32 bytes, data
    u32 count of aliases, each two strings

All numbers are little-endian; a string is a u16 length and that many bytes, the last a zero. Query, key and value
projections are one tensor, stacked by rows; the stacked bias has zeros for the key, which has no bias. `config.json`
beside it has the generation config, `tokenizer.json` the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tilewhisper.models.checkpoint.catalog import Dims
from tilewhisper.models.checkpoint.formats import Weights, settings
from tilewhisper.models.checkpoint.formats.binary import Cursor
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.formats.scaled import Scaled
from tilewhisper.models.checkpoint.generation_config import GenerationConfig, derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.checkpoint.stored_tensor import Plain, Storage, parameter
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.json_file import read_object
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_VERSION = 6
_DTYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_QUANTISED = (torch.int8, torch.int16)
_SCALE = "_scale"
_OUTPUT = "decoder/projection/weight"  # the output projection, which is the token embedding

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
    state, heads = _content(source)
    dims = dims_of(state, heads, source.name)
    tokenizer = vocabulary.from_file(source.folder / "tokenizer.json", n_vocab=dims[-1])
    dims = (*dims[:-1], tokenizer.n_vocab)
    return Weights(model_config(state, dims), state, tokenizer, _generation_config(source.folder, tokenizer, dims))


def tensors(source: Source) -> dict[str, torch.Tensor]:
    """Only the tensors of `model.bin`. Raises CheckpointError."""
    return _content(source)[0]


def _content(source: Source) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors, and the number of attention heads."""
    cursor = Cursor(source.files, source.name)
    variables = _variables(cursor, source.name)
    heads = variables.get("encoder/num_heads")
    if heads is None or heads.shape:
        raise CheckpointError(
            f"{source.name}: model.bin has no encoder/num_heads; convert it again with a current CTranslate2"
        )
    state: dict[str, torch.Tensor] = {}
    for name, stored in variables.items():
        if stored.shape and not name.endswith(_SCALE):
            state |= _renamed(name, _weight(name, variables, source.name), source.name)
    cursor.release()
    return state, int(_flat(heads).item())


def _variables(cursor: Cursor, name: str) -> dict[str, Plain]:
    (version,) = cursor.unpack("I")
    if version != _VERSION:
        raise CheckpointError(
            f"{name}: CTranslate2 format version {version}, only {_VERSION} is supported; convert the model again"
        )
    spec = _string(cursor)
    if spec != "WhisperSpec":
        raise CheckpointError(f"{name}: a CTranslate2 model of another kind ({spec}); expected a WhisperSpec")
    _revision, count = cursor.unpack("II")
    variables: dict[str, Plain] = {}
    for _ in range(count):
        key, stored = _variable(cursor, name)
        if key in variables:
            raise CheckpointError(f"{name}: it has {key} twice: the file is corrupt; download it again")
        variables[key] = stored
    (aliases,) = cursor.unpack("I")
    for _ in range(aliases):
        alias, target = _string(cursor), _string(cursor)
        if alias != _OUTPUT and target in variables:
            variables[alias] = variables[target]
            if target + _SCALE in variables:
                variables[alias + _SCALE] = variables[target + _SCALE]
    return variables


def _variable(cursor: Cursor, file: str) -> tuple[str, Plain]:
    name = _string(cursor)
    (rank,) = cursor.unpack("B")
    shape = cursor.unpack(f"{cursor.rank(rank)}I")
    code, size = cursor.unpack("BI")
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise CheckpointError(
            f"{file}: {name} has the unknown dtype number {code}: the file is corrupt or too new; convert it again"
        )
    stored = cursor.stored(dtype, shape)
    if stored.nbytes % (1 << 32) != size:  # the format has 32 bits for it
        raise CheckpointError(
            f"{file}: {name} states {size} bytes, but its shape needs {stored.nbytes}: the file is corrupt; "
            "download it again"
        )
    return name, stored


def _weight(name: str, variables: Mapping[str, Plain], file: str) -> Storage:
    """A tensor with its scale, where it is quantised."""
    stored = variables[name]
    if stored.dtype in _FLOATS:
        return stored
    kind = str(stored.dtype).removeprefix("torch.")
    scale = variables.get(name + _SCALE)
    if stored.dtype not in _QUANTISED or scale is None:
        raise CheckpointError(f"{file}: {name} is {kind} without a scale: the file is corrupt; convert it again")
    rows = stored.shape[0]
    if scale.dtype != torch.float32 or scale.shape not in ((), (rows,)):
        raise CheckpointError(
            f"{file}: {name} has {scale.dtype} scales of shape {scale.shape}, expected float32 for its {rows} rows: "
            "the file is corrupt; convert it again"
        )
    return Scaled(stored, _flat(scale).expand(rows))


def _flat(stored: Plain) -> torch.Tensor:
    """A scalar or a vector as float32 (n,)."""
    return stored.values(stored.data.clone())


def _string(cursor: Cursor) -> str:
    (length,) = cursor.unpack("H")
    return cursor.name(length)


def _renamed(name: str, storage: Storage, file: str) -> dict[str, torch.Tensor]:
    """Map transformers' name to the tensor, or, for a stacked tensor, each name to its rows."""
    module, _, kind = name.rpartition("/")
    kind = _PARAMETERS.get(kind, kind)
    if module in ROOT_NAMES:
        return {f"model.{ROOT_NAMES[module]}.{kind}": parameter(storage)}
    side, _, rest = module.partition("/layer_")
    index, _, leaf = rest.partition("/")
    if leaf not in LAYER_NAMES:
        raise CheckpointError(f"{file}: unexpected tensor {name}: not a Whisper model; convert it from Whisper weights")
    names = LAYER_NAMES[leaf]
    rows = storage.shape[0] // len(names)  # `modules.build` reports wrong sizes
    return {
        f"model.{side}.layers.{index}.{target}.{kind}": parameter(storage.part(place * rows, (place + 1) * rows))
        for place, target in enumerate(names)
        if not (kind == "bias" and target.endswith("k_proj"))
    }


def _generation_config(folder: Path, tokenizer: Tokenizer, dims: Dims) -> GenerationConfig:
    """The settings in `config.json`; missing ones are derived."""
    path = folder / "config.json"
    stored = read_object(path) if path.exists() else {}
    _, _, decoder_layers, heads, _, _ = dims
    names = ("suppress_ids", "suppress_ids_begin")
    return settings.checked(stored, names, derive(tokenizer, dims), tokenizer, (decoder_layers, heads), path)
