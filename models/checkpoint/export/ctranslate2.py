"""Write a CTranslate2 folder as its own converter does (layout: see the reader in `formats`).

int8 has a float32 scale for each row; int16 has one for the whole matrix, 1024 / its largest magnitude, so that
products have 20 bits. Both quantise projections, convolutions and the token embedding. Position embeddings, norms and
biases have the float type at the end of the precision's name, float32 where there is none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.export import json_files
from tilewhisper.models.checkpoint.export.model import DTYPES, ExportedModel, raw
from tilewhisper.models.checkpoint.formats.ctranslate2 import LAYER_NAMES, ROOT_NAMES

_VERSION, _REVISION = 6, 3
_GELU = 3  # CTranslate2's number of this activation
_CODES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4, torch.bfloat16: 5}
_ROWS = 4096  # quantised at a time
_TINY = 127 / torch.finfo(torch.float32).max
"""The smallest magnitude whose scale is finite."""


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write model.bin, config.json, vocabulary, tokenizer and preprocessor, in one of CTranslate2's types."""
    with (folder / "model.bin").open("wb") as file:
        file.write(struct.pack("<I", _VERSION) + _string("WhisperSpec"))
        scalars, stacks = _scalars(model), _stacks(model)
        quantised = sum(_is_quantised(name, precision) for name in stacks)
        file.write(struct.pack("<II", _REVISION, len(scalars) + len(stacks) + quantised))
        for stem in sorted([*scalars, *stacks]):
            variables = [(stem, scalars[stem])] if stem in scalars else _variables(model, stem, stacks[stem], precision)
            for name, tensor in variables:
                file.write(_string(name) + struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape))
                file.write(struct.pack("<BI", _CODES[tensor.dtype], tensor.nbytes))
                file.write(raw(tensor))
        # The output projection is the embedding.
        file.write(struct.pack("<I", 1) + _string("decoder/projection/weight") + _string("decoder/embeddings/weight"))
    json_files.write(folder / "config.json", _config(model))
    json_files.write(folder / "vocabulary.json", model.tokens())
    json_files.write_tokenizer(model, folder)
    json_files.write_preprocessor(model, folder)


def _config(model: ExportedModel) -> dict[str, object]:
    settings = model.generation_config
    return {
        "alignment_heads": settings.alignment_heads,
        "lang_ids": sorted(model.tokenizer.languages.values()),
        "suppress_ids": settings.suppress_tokens,
        "suppress_ids_begin": settings.begin_suppress_tokens,
    }


def _scalars(model: ExportedModel) -> dict[str, Tensor]:
    config = model.config
    short = {
        "encoder/num_heads": config.encoder_attention_heads,
        "decoder/num_heads": config.decoder_attention_heads,
        "decoder/alignment_heads": 1,
        "decoder/alignment_layer": -1,
    }
    flags = {"activation": _GELU, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0, "start_from_zero_embedding": 0}
    return {name: torch.tensor(value, dtype=torch.int16) for name, value in short.items()} | {
        f"decoder/{name}": torch.tensor(value, dtype=torch.int8) for name, value in flags.items()
    }


def _stacks(model: ExportedModel) -> dict[str, tuple[str, ...]]:
    """The name of each tensor in model.bin, and of the parameters that are stacked to it."""
    modules: dict[str, tuple[str, ...]] = {theirs: (ours,) for theirs, ours in ROOT_NAMES.items()}
    for side, layers in (("encoder", model.config.encoder_layers), ("decoder", model.config.decoder_layers)):
        for index in range(layers):
            for leaf, parts in LAYER_NAMES.items():
                modules[f"{side}/layer_{index}/{leaf}"] = tuple(f"{side}.layers.{index}.{part}" for part in parts)
    return {
        f"{theirs}/{_parameter(theirs, parameter)}": tuple(f"{part}.{parameter}" for part in ours)
        for theirs, ours in modules.items()
        for parameter in ("weight", "bias")
        if f"{ours[-1]}.{parameter}" in model  # the encoder has no cross-attention, and embeddings no bias
    }


def _parameter(module: str, parameter: str) -> str:
    if module.endswith("layer_norm"):
        return {"weight": "gamma", "bias": "beta"}[parameter]
    return "encodings" if module.endswith("position_encodings") else parameter


def _variables(
    model: ExportedModel, name: str, parameters: tuple[str, ...], precision: str
) -> Iterator[tuple[str, Tensor]]:
    """The stacked tensor in its type, and its scale if it is quantised."""
    values = torch.cat([_read(model, parameter) for parameter in parameters])
    if not _is_quantised(name, precision):
        yield name, values.to(_float_type(precision))
        return
    quantised, scale = _int16(values) if precision == "int16" else _int8(values)
    yield name, quantised
    yield f"{name}_scale", scale


def _read(model: ExportedModel, parameter: str) -> Tensor:
    if parameter in model:
        return model.read(parameter)
    return torch.zeros(model.shape(parameter.removesuffix("bias") + "weight")[0])  # the key projection has no bias


def _is_quantised(name: str, precision: str) -> bool:
    return precision.startswith("int") and name.endswith("/weight")


def _float_type(precision: str) -> torch.dtype:
    return DTYPES.get(precision.rpartition("_")[2], torch.float32)


def _int8(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (rows, ...) as int8, and a scale for each row: value = int8 / scale."""
    rows = values.flatten(1)
    largest = rows.abs().amax(dim=1)
    # Not 127 / …, which torch computes as a product with the reciprocal: another last bit than CTranslate2's.
    scale = torch.tensor(127.0) / torch.where(largest == 0, 127, largest).clamp(min=_TINY)
    parts = zip(rows.split(_ROWS), scale.split(_ROWS), strict=True)
    codes = [(part * factor[:, None]).round().to(torch.int8) for part, factor in parts]
    return torch.cat(codes).view(values.shape), scale


def _int16(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (rows, ...) as int16, and one scale: value = int16 / scale."""
    largest = values.abs().max()
    scale = 1024 / torch.where(largest == 0, 1, largest)
    return torch.cat([(part * scale).round().to(torch.int16) for part in values.split(_ROWS)]), scale


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"
