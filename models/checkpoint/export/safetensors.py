"""Write safetensors files tensor by tensor, in shards where the model is large.

    u64 length of the header, the header (JSON: dtype, shape and byte range of each tensor), the tensors' bytes

The library's own writer needs all tensors of a file in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import torch

from tilewhisper.models.checkpoint.export import json_files
from tilewhisper.models.checkpoint.export.model import ExportedModel, raw

SHARD_BYTES = 5_000_000_000
"""Largest file, as transformers writes them."""

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write(model: ExportedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write model.safetensors, or shards and their index, with transformers' names of tensors."""
    shards = _shards(model, dtype.itemsize)
    if len(shards) == 1:
        _write_file(model, folder / "model.safetensors", shards[0], dtype)
        return
    files = {f"model-{number:05}-of-{len(shards):05}.safetensors": names for number, names in enumerate(shards, 1)}
    for file, names in files.items():
        _write_file(model, folder / file, names, dtype)
    total = sum(_bytes(model, name, dtype.itemsize) for name in model.names)
    places = {f"model.{name}": file for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    json_files.write(folder / "model.safetensors.index.json", index)


def _shards(model: ExportedModel, width: int) -> list[list[str]]:
    """The tensors of each file: as many as fit, in order, and at least one."""
    shards: list[list[str]] = []
    used = SHARD_BYTES
    for name in model.names:
        size = _bytes(model, name, width)
        if used + size > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _bytes(model: ExportedModel, name: str, width: int) -> int:
    return torch.Size(model.shape(name)).numel() * width


def _write_file(model: ExportedModel, path: Path, names: Sequence[str], dtype: torch.dtype) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + _bytes(model, name, dtype.itemsize)
        header[f"model.{name}"] = {
            "dtype": _DTYPES[dtype],
            "shape": model.shape(name),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(raw(model.read(name).to(dtype)))
