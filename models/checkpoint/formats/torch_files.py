"""Read the tensors of safetensors and PyTorch files without copying them into memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.stored_tensor import Plain, parameter
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.memory import release_pages

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_MAX_PICKLE = 32 << 20  # names and shapes; 200 kB for large-v3
_LEGACY_PICKLES = 4  # magic number, version, sizes of C types, the object
_TENSOR_GLOBALS = re.compile(
    r"collections OrderedDict|torch\.?\w* \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|"
    r"torch\.nn\.parameter Parameter"
)
_ZIP = b"PK"  # of torch.save since torch 1.6


def safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` as a model holds them, left in the file. Raises CheckpointError."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # SafetensorError, OSError and, for impossible sizes, others
        raise _unreadable(path, error) from error
    return parameters(tensors, path, mapped=True)


def pickled(path: Path) -> tuple[Any, bool]:
    """The content of a file of `torch.save`, and whether its tensors are mapped. Raises CheckpointError.

    Code in the file is not run. A bare pickle, as before torch 1.6, is read into memory.
    """
    try:
        with path.open("rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            pickles = _pickles_in_archive(path) if mapped else [file.read(_MAX_PICKLE)]
        for content in pickles:
            _check_globals(content, 1 if mapped else _LEGACY_PICKLES)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped
    except Exception as error:  # a corrupt pickle or archive may raise any exception
        raise _unreadable(path, error) from error


def _pickles_in_archive(path: Path) -> list[bytes]:
    """The pickles of an archive that takes no more memory than its file has bytes."""
    with ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != ZIP_STORED for entry in entries) or (
            sum(entry.file_size for entry in entries) > path.stat().st_size
        ):
            raise ValueError("a compressed archive, which torch.save does not write")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if any(entry.file_size > _MAX_PICKLE for entry in pickles):
            raise ValueError(f"a pickle of more than {_MAX_PICKLE >> 20} MB beside the tensors")
        return [archive.read(entry) for entry in pickles]


def _check_globals(content: bytes, count: int) -> None:
    """Refuse what torch.load accepts besides tensors: bytearray(10**12) in a small file takes that much memory."""
    stream = BytesIO(content)
    for _ in range(count):
        for opcode, argument, _ in genops(stream):
            if opcode.name == "GLOBAL" and not _TENSOR_GLOBALS.fullmatch(str(argument)):
                raise UnpicklingError(f"{str(argument)[:60]} is not a part of plain tensors (weights_only)")


def parameters(tensors: Mapping[str, Tensor], path: Path, *, mapped: bool) -> dict[str, Tensor]:
    """The tensors of one file as a model holds them. Raises CheckpointError for an unusable one."""
    size = path.stat().st_size
    found = {name: parameter(_stored(tensor, f"{path}: {name}", size, mapped)) for name, tensor in tensors.items()}
    if mapped:  # reading a vector has mapped the pages around it too
        for tensor in tensors.values():
            release_pages(tensor)
    return found


def _stored(tensor: Any, name: str, size: int, mapped: bool) -> Plain:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{name} is not an ordinary tensor; expected Whisper's weights")
    if not tensor.ndim or not tensor.numel():
        raise CheckpointError(f"{name} has the impossible shape {tuple(tensor.shape)}; download it again")
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{name} is {kind}: expected float32, float16 or bfloat16; convert it to one of these")
    if tensor.nbytes > size:  # strides of 0 make a large tensor of a small file
        raise CheckpointError(f"{name} is larger than its file, which is therefore corrupt; download it again")
    dense = tensor.detach().contiguous()
    mapped = mapped and dense.data_ptr() == tensor.data_ptr()
    return Plain(tuple(tensor.shape), dense.view(-1).view(torch.uint8), mapped, tensor.dtype)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, UnpicklingError) and "weights_only" in str(error):
        return CheckpointError(
            f"{path}: it has other objects than plain tensors, and code in weights is not run; download it again"
        )
    reason = " ".join(str(error).split())[:120]
    return CheckpointError(f"{path}: missing, incomplete or corrupt: {reason}; download it again")
