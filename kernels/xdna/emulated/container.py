"""The emulated device's binary: a file that begins like an xclbin and holds a `Program` as JSON.

8 bytes     "xclbin2" and a zero, like a real xclbin; a real XRT rejects the rest of the file
16          UUID, of the payload
4           length of the payload, little-endian
32          SHA-256 of the payload
the rest    payload: JSON
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid5

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.artifacts import design_from_json
from tilewhisper.kernels.xdna.emulated.program import Layout, ProductProgram, Program, RowProgram
from tilewhisper.kernels.xdna.row_plan import RowDesign

_MAGIC = b"xclbin2\0"
_HEADER = struct.Struct("<8s16sI32s")
_NAMESPACE = UUID("5b6a43b1-6f0e-4a5e-9e46-0f1b3d6d7a10")


@dataclass(frozen=True)
class Binary:
    """The contents of a container."""

    uuid: UUID
    kernel: str
    arguments: int
    """Number of the kernel's arguments: opcode, instructions, their length, and buffers."""
    program: Program


def pack(program: Program, kernel: str, arguments: int = 8) -> bytes:
    """The container's bytes. mlir-aie declares five buffers for every design, thus 8 arguments."""
    payload = json.dumps({"kernel": kernel, "arguments": arguments, "program": asdict(program)}).encode()
    uuid = uuid5(_NAMESPACE, payload.decode())
    return _HEADER.pack(_MAGIC, uuid.bytes, len(payload), hashlib.sha256(payload).digest()) + payload


def unpack(data: bytes) -> Binary:
    """Parse a container. Raises ValueError if the bytes are another format, truncated or damaged."""
    if len(data) < _HEADER.size:
        raise ValueError("too short for a container")
    magic, uuid, length, digest = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != _MAGIC or len(payload) != length or hashlib.sha256(payload).digest() != digest:
        raise ValueError("not a container of the emulated device, or a damaged one")
    content = json.loads(payload)
    return Binary(UUID(bytes=uuid), content["kernel"], content["arguments"], _program(content["program"]))


def _program(data: dict[str, Any]) -> Program:
    design = design_from_json(data["design"])
    if isinstance(design, RowDesign):
        return RowProgram(design)
    return ProductProgram(
        design=design,
        micro=Tile(**data["micro"]),
        a=_layout(data["a"]),
        b=_layout(data["b"]),
        c=_layout(data["c"]),
    )


def _layout(data: dict[str, list[int]]) -> Layout:
    return Layout(tuple(data["sizes"]), tuple(data["strides"]))
