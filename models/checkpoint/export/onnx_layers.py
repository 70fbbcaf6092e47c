"""Whisper's layers as nodes of an ONNX graph. Values are their names; shapes are (batch, positions, width)."""

from __future__ import annotations

import torch

from tilewhisper.models.checkpoint.export.model import ExportedModel
from tilewhisper.models.checkpoint.export.onnx_graph import DataFile, Graph

EPSILON = 1e-5
EMBEDDING = "decoder.embed_tokens"


class Layers:
    """Adds layers to a graph, and their weights to its data file where it does not have them.

    `precision` is float32, float16, int8 (activations are quantised too) or "int8 weights" (activations are float32).
    """

    def __init__(self, model: ExportedModel, data: DataFile, precision: str) -> None:
        self.model, self.graph, self._data = model, Graph(data), data
        self.dtype = torch.float16 if precision == "float16" else torch.float32
        self._int8, self._only_weights = precision.startswith("int8"), precision == "int8 weights"

    def parameter(self, name: str, *, transposed: bool = False) -> str:
        if name not in self._data:
            values = self.model.read(name).to(self.dtype)
            self._data.add(name, values.T if transposed else values)
        return self.graph.weight(name)

    def linear(self, module: str, x: str) -> str:
        weight = f"{module}.weight"
        if self._int8:
            product = self._quantised_product(x, *self._rows_as_int8(weight, transposed=True))
        else:
            product = self.graph.node("MatMul", x, self.parameter(weight, transposed=True))
        if f"{module}.bias" not in self.model:  # the key projection has none
            return product
        return self.graph.node("Add", product, self.parameter(f"{module}.bias"))

    def norm(self, module: str, x: str) -> str:
        parameters = (self.parameter(f"{module}.{one}") for one in ("weight", "bias"))
        return self.graph.node("LayerNormalization", x, *parameters, axis=-1, epsilon=EPSILON)

    def convolution(self, module: str, x: str, stride: int) -> str:
        parameters = (self.parameter(f"{module}.{one}") for one in ("weight", "bias"))
        y = self.graph.node("Conv", x, *parameters, kernel_shape=[3], pads=[1, 1], strides=[stride])
        return self.graph.node("Gelu", y)

    def feed_forward(self, layer: str, x: str) -> str:
        y = self.linear(f"{layer}.fc1", self.norm(f"{layer}.final_layer_norm", x))
        return self.graph.node("Add", x, self.linear(f"{layer}.fc2", self.graph.node("Gelu", y)))

    def heads(self, x: str, heads: int) -> str:
        """(batch, positions, width) to (batch, heads, positions, width of a head)."""
        shape = self.graph.constant([0, 0, heads, self.model.config.d_model // heads])
        return self.graph.node("Transpose", self.graph.node("Reshape", x, shape), perm=[0, 2, 1, 3])

    def attention(self, module: str, x: str, keys: str, values: str, heads: int, mask: str | None = None) -> str:
        """Attention of x to keys and values (batch, heads, positions, width of a head), projected."""
        graph, width = self.graph, self.model.config.d_model
        scale = graph.constant((width // heads) ** -0.5, self.dtype)
        queries = self.heads(graph.node("Mul", self.linear(f"{module}.q_proj", x), scale), heads)
        scores = graph.node("MatMul", queries, graph.node("Transpose", keys, perm=[0, 1, 3, 2]))
        if mask:
            scores = graph.node("Add", scores, mask)
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
        merged = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), graph.constant([0, 0, width]))
        return self.linear(f"{module}.out_proj", merged)

    def embed(self, ids: str) -> str:
        """Token ids (batch, positions) to their embeddings."""
        weight = f"{EMBEDDING}.weight"
        if not self._int8:
            return self.graph.node("Gather", self.parameter(weight), ids)
        codes, scale = self._rows_as_int8(weight)
        return self._converted(*(self.graph.node("Gather", one, ids) for one in (codes, scale)))

    def logits(self, x: str) -> str:
        """The products with all embeddings, (batch, positions, vocabulary)."""
        graph, weight = self.graph, f"{EMBEDDING}.weight"
        if self._only_weights:
            # Transposed after the conversion: OpenVINO keeps only then the integers, and converts while it multiplies.
            return graph.node("MatMul", x, graph.node("Transpose", self._converted(*self._rows_as_int8(weight))))
        if self._int8:
            codes, scale = (graph.node("Transpose", one) for one in self._rows_as_int8(weight))
            return self._quantised_product(x, codes, scale)
        return graph.node("MatMul", x, graph.node("Transpose", self.parameter(weight)))

    def _rows_as_int8(self, name: str, *, transposed: bool = False) -> tuple[str, str]:
        """A matrix (rows, columns) as int8, and its scales (rows, 1): value = int8 * scale."""
        codes, scale = f"{name}_int8", f"{name}_scale"
        if codes not in self._data:
            values = self.model.read(name)
            scales = (values.abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            rounded = torch.cat(
                [
                    (part / factor).round().to(torch.int8)
                    for part, factor in zip(values.split(4096), scales.split(4096), strict=True)
                ]
            )
            self._data.add(codes, rounded.T if transposed else rounded)
            self._data.add(scale, scales.T if transposed else scales)
        return self.graph.weight(codes), self.graph.weight(scale)

    def _converted(self, codes: str, scale: str) -> str:
        return self.graph.node("Mul", self.graph.node("Cast", codes, to=1), scale)

    def _quantised_product(self, x: str, codes: str, scale: str) -> str:
        """x (batch, positions, columns) times codes (columns, rows), x quantised by its own range if it is at all."""
        graph = self.graph
        if self._only_weights:
            return graph.node("MatMul", x, self._converted(codes, scale))
        quantised = graph.node("DynamicQuantizeLinear", x, outputs=3)
        integers = graph.node("MatMulInteger", quantised, codes, f"{quantised}_2")
        factor = graph.node("Mul", scale, f"{quantised}_1")
        return graph.node("Mul", graph.node("Cast", integers, to=1), factor)
