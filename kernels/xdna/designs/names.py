"""The enumerations of mlir-aie's dialects, as their generic form writes them."""

from collections.abc import Mapping
from typing import Literal

Port = Literal["produce", "consume"]

DEVICES: Mapping[str, int] = {"xdna1": 4, "xdna2": 8}
"""`npu1` and `npu2` of `AIEDevice`: the whole array of four and of eight columns."""

TYPES: Mapping[str, str] = {"bf16": "bf16", "f32": "f32", "int8": "i8", "int32": "i32"}

PORTS: Mapping[Port, int] = {"produce": 0, "consume": 1}
