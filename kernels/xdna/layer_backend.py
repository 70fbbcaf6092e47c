"""Whole encoder layers on the NPU: `layer_plan`'s chain of launches, with activations that stay in the device's memory.

The host uploads the first layer's input and reads the last layer's result; between them it only starts runs. An
activation is two matrices, x in float32 and y in bf16, whose sum is its value: the next layer's first launch adds them.

Before its first use a size of layer computes random numbers, which are compared with float32 on the host: a design that
was built for another size, or a core that does not work, is found by the wrong tile.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tilewhisper.kernels.base import Block, EncoderLayer, LayerShape, ProductFailed, UnsupportedShape, Usage
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.kernels.device_tensor import DeviceTensor, to_host
from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.backend import Prepared, XdnaBackend
from tilewhisper.kernels.xdna.buffers import STORED, bits
from tilewhisper.kernels.xdna.devices import CORE_TILE
from tilewhisper.kernels.xdna.layer_plan import INPUTS, OUTPUTS, ROWS, WEIGHTS, LayerPlan, Matrix, Step, plan_layer
from tilewhisper.kernels.xdna.layer_weights import HostLinear, layer_matrices, layer_shape, why_not_on_device

CANARY_BOUND = 0.125
"""Of the root mean square of what a layer adds, in each tile of a core: bf16's rounding is at most 0.03 of it in every
layer of tiny.en and base, a wrong tile about 1."""

MoreKV = tuple[Tensor, Tensor] | None


@dataclass(eq=False)
class Window:
    """The activation of one window: x (ROWS, d_model) float32 and y bf16, whose sum is its value."""

    x: xrt.Buffer
    y: xrt.Buffer


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """A layer on the device."""

    plan: LayerPlan
    weights: Mapping[str, xrt.Buffer]


@dataclass(eq=False)
class _Memory:
    """The buffers of one size of layer that all its layers share."""

    scratch: dict[str, xrt.Buffer]
    free: list[tuple[xrt.Buffer, xrt.Buffer]] = field(default_factory=list)
    """Buffers x and y of windows that nothing refers to any more."""


class XdnaLayerBackend(XdnaBackend):
    """`XdnaBackend` that runs a whole layer as one block. Single products run as they do there."""

    name = "npu-layer"
    summary = "whole encoder layers on AMD's XDNA array: bf16 products, float32 sums, one read-back for each encode"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._memories: dict[LayerShape, _Memory] = {}
        self._products: weakref.WeakKeyDictionary[HostLinear, Prepared] = weakref.WeakKeyDictionary()

    def supports_block(self, block: Block, shape: LayerShape) -> str | None:
        if block != "encoder_layer":
            return super().supports_block(block, shape)
        try:
            plan_layer(shape, self._device)
        except UnsupportedShape as e:
            return str(e)
        return None

    def prepare(self, weight: Tensor, bias: Tensor | None) -> HostLinear:  # type: ignore[override]
        return HostLinear(weight, bias)

    def linear(self, x: Tensor, prepared: HostLinear) -> Tensor:  # type: ignore[override]
        if prepared not in self._products:
            self._products[prepared] = super().prepare(prepared.weight, prepared.bias)
        return super().linear(to_host(x), self._products[prepared])

    def prepare_layer(self, layer: EncoderLayer) -> PreparedLayer | EncoderLayer:
        """The layer's weights on the device; the layer itself if no designs are made for its size or its norms."""
        shape = layer_shape(layer)
        if self.supports_block("encoder_layer", shape) or why_not_on_device(layer):
            return layer
        plan = plan_layer(shape, self._device)
        weights = {name: self._buffer(plan, name) for name in WEIGHTS}
        for name, matrix in layer_matrices(layer).items():
            weights[name].array[...] = matrix
            weights[name].to_device()
        prepared = PreparedLayer(plan, weights)
        if shape not in self._memories:
            scratch = {name: self._buffer(plan, name) for name in plan.buffers.keys() - {*INPUTS, *OUTPUTS, *WEIGHTS}}
            self._memories[shape] = _Memory(scratch)
            try:
                self._check(prepared, layer)
            except ProductFailed:
                del self._memories[shape]  # so that the next layer of this size is checked too
                raise
        return prepared

    def encoder_layer(
        self, x: Tensor, layer: PreparedLayer | EncoderLayer, bias: Tensor | None = None, more: MoreKV = None
    ) -> Tensor:
        if isinstance(layer, EncoderLayer):
            return super().encoder_layer(x, layer, bias, more)
        windows = x.buffer if isinstance(x, DeviceTensor) else [self._upload(layer, each) for each in x]
        added = [None] * len(windows) if more is None else list(zip(*more, strict=True))
        self._set_bias(layer, x.shape[1], bias, 0 if more is None else more[0].shape[2])
        results = [self._run_layer(layer, w, x.shape[1], kv) for w, kv in zip(windows, added, strict=True)]
        return DeviceTensor(x.shape, self, results)

    def to_host(self, x: Tensor) -> Tensor:
        if not isinstance(x, DeviceTensor):
            return x
        values = torch.stack([_value(window, x.shape[1]) for window in x.buffer])
        self._usage += Usage(read_backs=1)
        return values

    def close(self) -> None:
        super().close()
        self._memories.clear()
        self._products.clear()

    def _run_layer(self, layer: PreparedLayer, window: Window, positions: int, more: MoreKV) -> Window:
        memory, result = self._memories[layer.plan.shape], self._window(layer)
        named = dict(zip((*INPUTS, *OUTPUTS), (window.x, window.y, result.x, result.y), strict=True))
        buffers = memory.scratch | dict(layer.weights) | named
        for step in layer.plan.steps:
            self._run_step(step, [buffers[name] for name in step.buffers])
            if step.name == "qkv" and more is not None:
                _append(buffers["qkv"], positions, more)
        return result

    def _run_step(self, step: Step, buffers: Sequence[xrt.Buffer]) -> None:
        design = self._design(step.launches[0])
        key = (step.name, *(buffer.number for buffer in buffers))
        before = design.started
        seconds = design.execute(
            key, lambda: [design.context.bind(self._artifact(p), *buffers) for p in step.launches], self._timeout_ms
        )
        self._usage += Usage(design.started - before, len(step.launches), 0, seconds)

    def _upload(self, layer: PreparedLayer, x: Tensor) -> Window:
        """x (positions, d_model) on the device, the padding zero."""
        window = self._window(layer)
        window.x.array[: len(x)], window.x.array[len(x) :] = x.numpy(), 0
        window.y.array[...] = 0
        window.x.to_device()
        window.y.to_device()
        return window

    def _window(self, layer: PreparedLayer) -> Window:
        """Buffers for one activation, which go back when nothing refers to it any more."""
        memory = self._memories[layer.plan.shape]
        x, y = memory.free.pop() if memory.free else [self._buffer(layer.plan, name) for name in INPUTS]
        window = Window(x, y)
        weakref.finalize(window, memory.free.append, (x, y)).atexit = False
        return window

    def _buffer(self, plan: LayerPlan, name: str) -> xrt.Buffer:
        """A new buffer. All host buffers of a kernel are in the same memory, so any argument's group will do."""
        matrix: Matrix = plan.buffers[name]
        group = self._design(plan.steps[0].launches[0]).context.group(0)
        return xrt.Buffer(self._xrt, group, STORED[matrix.dtype], (matrix.rows, matrix.columns))

    def _set_bias(self, layer: PreparedLayer, positions: int, bias: Tensor | None, more: int) -> None:
        """The logits' bias of each key: 0 or `bias`, and -inf for the padding."""
        keys = positions + more
        if keys > ROWS:
            raise ProductFailed(f"attention over {keys} keys: the device's designs have {ROWS}")
        buffer = self._memories[layer.plan.shape].scratch["bias"]
        wanted = np.full((1, ROWS), -np.inf, np.float32)
        wanted[0, :keys] = 0 if bias is None else bias.numpy()
        if not np.array_equal(buffer.array, wanted):
            buffer.array[...] = wanted
            buffer.to_device()

    def _check(self, layer: PreparedLayer, weights: EncoderLayer) -> None:
        """Compare a layer of random numbers with float32. Raises ProductFailed with the first wrong tile."""
        width, before = layer.plan.shape.width, self._usage
        x = torch.randn(1, ROWS, width, generator=torch.Generator().manual_seed(0))
        found = self.to_host(self.encoder_layer(x, layer))
        self._usage = before
        expected = _on_host(x, weights)
        wrong = _wrong_tiles(found[0] - expected[0], expected[0] - x[0])
        if len(wrong):
            row, column = (wrong[0] * torch.tensor([CORE_TILE.m, CORE_TILE.n])).tolist()
            raise ProductFailed(
                f"a layer of random numbers is wrong in {len(wrong)} tiles, the first at row {row}, column {column}; "
                "run `tilewhisper npu-check`, or rebuild the designs with scripts/build_kernels.py"
            )


def _append(qkv: xrt.Buffer, positions: int, more: tuple[Tensor, Tensor]) -> None:
    """Write keys and values (heads, n, head_dim) into the rows after the positions' own."""
    keys, values = (each.transpose(0, 1).flatten(1) for each in more)
    width = keys.shape[1]
    rows = slice(positions, positions + len(keys))
    qkv.array[rows, width : 2 * width], qkv.array[rows, 2 * width :] = bits(keys), bits(values)
    qkv.rows_to_device(rows)


def _value(window: Window, positions: int) -> Tensor:
    window.x.from_device()
    window.y.from_device()
    x, y = (torch.from_numpy(buffer.array[:positions]) for buffer in (window.x, window.y))
    return x + y.view(torch.bfloat16).float()


def _on_host(x: Tensor, layer: EncoderLayer) -> Tensor:
    host = TorchBackend()
    qkv, out, fc1, fc2 = (host.prepare(w.weight, w.bias) for w in (layer.qkv, layer.out, layer.fc1, layer.fc2))
    prepared = EncoderLayer(
        host.prepare_norm(layer.attention_norm),
        qkv,
        out,
        host.prepare_norm(layer.final_norm),
        fc1,
        fc2,
        layer.heads,
        layer.scale,
    )
    with torch.inference_mode():
        y: Tensor = host.encoder_layer(x, host.prepare_layer(prepared))
    return y


def _wrong_tiles(error: Tensor, added: Tensor) -> Tensor:
    """(row, column) of the core's tiles whose error is above the bound, in tiles."""
    tiles = error.unflatten(1, (-1, CORE_TILE.n)).unflatten(0, (-1, CORE_TILE.m))
    size = tiles.square().mean(dim=(1, 3)).sqrt()
    wrong: Tensor = (~(size <= CANARY_BOUND * added.square().mean().sqrt())).nonzero()  # NaN is wrong too
    return wrong
