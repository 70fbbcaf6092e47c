"""An ONNX graph under construction: nodes in order, and weights in a file beside it.

Operators are those of opset 20. Weights are written once each, however many graphs use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from tilewhisper.models.checkpoint.export.model import raw

_OPSET, _IR_VERSION = 20, 9
_ALIGNMENT = 64
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.int8: TensorProto.INT8,
    torch.int64: TensorProto.INT64,
}


class DataFile:
    """The weights of some graphs, in one file."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        """`location` is the file's name beside the graphs."""
        self._file, self._location = file, location
        self._tensors: dict[str, TensorProto] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> TensorProto:
        return self._tensors[name]

    def add(self, name: str, values: Tensor) -> None:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        tensor = TensorProto(name=name, dims=values.shape, data_type=_TYPES[values.dtype])
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self._location, "offset": self._file.tell(), "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(raw(values))
        self._tensors[name] = tensor


class Graph:
    """Nodes, inputs, outputs and weights. Values are their names."""

    def __init__(self, data: DataFile) -> None:
        self._data = data
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: list[TensorProto] = []
        self._used: dict[str, TensorProto] = {}

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; its first output. Further ones have the suffixes _1, _2, …"""
        name = f"{operator}_{len(self._nodes)}"
        names = [name, *(f"{name}_{number}" for number in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def constant(self, values: Sequence[int] | Sequence[float] | int | float, dtype: torch.dtype = torch.int64) -> str:
        tensor = torch.tensor(values, dtype=dtype)
        name = f"constant_{len(self._constants)}"
        self._constants.append(helper.make_tensor(name, _TYPES[dtype], tensor.shape, bytes(raw(tensor)), raw=True))
        return name

    def weight(self, name: str) -> str:
        """A tensor of the data file."""
        self._used[name] = self._data[name]
        return name

    def input(self, name: str, shape: Sequence[int | str], dtype: torch.dtype) -> str:
        """An input; dimensions that vary are given by a name."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str], dtype: torch.dtype) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))

    def save(self, path: Path) -> None:
        initializers = [*self._constants, *self._used.values()]
        graph = helper.make_graph(self._nodes, path.stem, self._inputs, self._outputs, initializers)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="tilewhisper")
        path.write_bytes(model.SerializeToString())
