"""Write OpenAI's `.pt`: what `torch.save` writes for {"dims": {…}, "model_state_dict": {…}}, one tensor at a time.

`torch.save` needs all tensors in memory. Here, the pickle refers to records of the archive, which follow one by one.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tilewhisper.models.checkpoint.export import openai_layout
from tilewhisper.models.checkpoint.export.model import DTYPES, ExportedModel, raw

_ALIGNMENT = 64
_RECORD_HEADER = 30  # bytes before a record's name
_PADDING, _PADDING_ID = struct.Struct("<HH"), 0x4246  # a zip's extra field: its number, that torch uses too, and length
_STORAGES = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage}


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write whisper-NAME.pt. The bare name of an official size would be taken for OpenAI's own file, with its hash."""
    openai_layout.check(model, "openai-whisper")
    dtype = DTYPES[precision]
    shapes = openai_layout.shapes(model)
    state = {name: _Tensor(_Storage(str(key), dtype, shape), shape) for key, (name, shape) in enumerate(shapes.items())}
    with zipfile.ZipFile(folder / f"whisper-{model.name}.pt", "w") as archive:
        _add(archive, "data.pkl", _pickled({"dims": openai_layout.sizes(model), "model_state_dict": state}))
        _add(archive, "byteorder", b"little")
        _add(archive, "version", b"3\n")
        for name, values in openai_layout.tensors(model):
            _add(archive, f"data/{state[name].storage.key}", raw(values.to(dtype)))


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Add a record whose content starts at a multiple of 64 bytes, as torch does, so that it can be memory-mapped."""
    record = zipfile.ZipInfo(f"archive/{name}")
    start = archive.start_dir + _RECORD_HEADER + len(record.filename) + _PADDING.size
    padding = -start % _ALIGNMENT
    record.extra = _PADDING.pack(_PADDING_ID, padding) + bytes(padding)
    archive.writestr(record, content)


@dataclass(frozen=True)
class _Storage:
    """A reference to the record `data/KEY`."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Tensor:
    """A contiguous tensor, without its values."""

    storage: _Storage
    shape: tuple[int, ...]


class _Pickler(pickle.Pickler):
    """Pickles `_Tensor` and `_Storage` as torch.save pickles tensors and their storages."""

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        return ("storage", _STORAGES[value.dtype], value.key, "cpu", torch.Size(value.shape).numel())

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, _Tensor):
            return NotImplemented
        strides = torch.empty(value.shape, device="meta").stride()
        arguments: Any = (value.storage, 0, value.shape, strides, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def _pickled(content: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()
