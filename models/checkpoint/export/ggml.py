"""Write whisper.cpp's ggml `.bin` (layout: see the reader in `formats`), as its own converter and quantizer do.

Matrices have the precision, the convolutions are float16, and all other tensors are float32. There is no f32:
whisper.cpp loads such a file, and stops at its convolutions ("GGML_ASSERT(src0->type == GGML_TYPE_F16) failed").
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from torch import Tensor

from tilewhisper.models.checkpoint.export import openai_layout
from tilewhisper.models.checkpoint.export.ggml_blocks import BLOCK, TYPES, encode
from tilewhisper.models.checkpoint.export.model import ExportedModel, raw
from tilewhisper.models.errors import ExportError
from tilewhisper.models.mel_filters import mel_filters

_MAGIC = 0x67676D6C
_FILE_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}
_QUANTISATION_VERSION = 2000
"""Added to the file type of a quantised file: version 2 of ggml's quantised types."""
_ROWS = 4096  # written at a time


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write ggml-NAME.bin in f16, or ggml-NAME-PRECISION.bin: the names of whisper.cpp's own files."""
    openai_layout.check(model, "whisper.cpp")
    plain = precision == "f16"
    if not plain and model.config.d_model % BLOCK:
        raise ExportError(
            f"{precision} has blocks of {BLOCK} values, and this model's width of {model.config.d_model} is not a "
            "multiple of it: use f16"
        )
    suffix = "" if plain else f"-{precision}"
    file_type = _FILE_TYPES[precision] + (0 if plain else _QUANTISATION_VERSION)
    filters = mel_filters(model.config.num_mel_bins).float()
    tokenizer = model.tokenizer
    with (folder / f"ggml-{model.name}{suffix}.bin").open("wb") as file:
        file.write(struct.pack("<I11i", _MAGIC, *openai_layout.sizes(model).values(), file_type))
        file.write(struct.pack("<2i", *filters.shape))
        file.write(raw(filters))
        file.write(struct.pack("<i", tokenizer.eot))
        for token in map(tokenizer.bytes_of, range(tokenizer.eot)):
            file.write(struct.pack("<I", len(token)) + token)
        for name, values in openai_layout.tensors(model):
            _write_tensor(file, name, values, precision)


def _write_tensor(file: IO[bytes], name: str, values: Tensor, precision: str) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values, kind = values[:, None], "f32"  # a column
    elif values.ndim < 2 or name.endswith("positional_embedding"):
        kind = "f32"
    else:
        kind = "f16" if values.ndim == 3 else precision
    label = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(label), TYPES[kind]))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + label)
    for rows in values.split(_ROWS):
        file.write(raw(encode(rows, kind)))
