"""Time one encoder layer of any size on this machine's CPU, with random weights: what an NPU has to beat.

Every backend's result is compared with torch's float32 before it is timed. A time is that of one call after a call that
warmed up, or the median of several if one is short. The layers of a model take as long as one layer times their number:
they have the same sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, BackendUnavailable, EncoderLayer, LayerShape, Norm, ProductFailed

_Linear = tuple[Tensor, Tensor]

CPU_POLICIES = ("cpu", "int8")
BROKEN = 0.1
"""Relative error of a layer above which a backend's result is wrong; 8-bit backends stay below 0.05."""
_ENOUGH_SECONDS, _MOST_CALLS = 0.2, 7
"""Calls are repeated until they took this long together."""


@dataclass(frozen=True)
class CpuLayer:
    """Seconds of one layer on this machine's CPU."""

    shape: LayerShape
    backends: Mapping[str, float]
    """The whole layer, by backend; only those that run here."""
    without_projections: float
    """What policy `npu` leaves to the CPU: all but q, k, v and out, in float32 by torch."""
    without_products: float
    """What policy `npu-full` leaves to the CPU: norms, softmax, GELU and sums, by torch."""

    missing: tuple[str, ...] = ()
    """Backends that cannot run here, each with the reason."""

    def policy(self, name: str, layers: int) -> float:
        """Seconds of a model's layers by policy `cpu` or `int8`, which give way to torch where kernels are missing."""
        int16 = self.backends.get("int16", self.backends["torch"])
        return layers * int16 if name == "cpu" else int16 + (layers - 1) * self.backends.get("w8a8", int16)


class _NoProducts(Backend):
    """Products that take no time: zeros of the right size."""

    name = "none"
    summary = "zeros"

    def __init__(self) -> None:
        self._zeros: dict[tuple[int, ...], Tensor] = {}

    def prepare(self, weight: Tensor, bias: Tensor | None) -> int:
        return len(weight)

    def linear(self, x: Tensor, prepared: int) -> Tensor:
        return self._result(*x.shape[:-1], prepared)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._result(*a.shape[:-1], b.shape[-1])

    def _result(self, *shape: int) -> Tensor:
        return self._zeros.setdefault(shape, torch.zeros(shape))


@torch.inference_mode()
def measure(shape: LayerShape) -> CpuLayer:
    """Raises ProductFailed if a backend's result is wrong."""
    weights, x = _random_weights(shape), _normal(1, shape.positions, shape.width)
    exact = registry.create("torch")
    layer = _layer(shape, weights, exact)
    expected = exact.encoder_layer(x, layer)
    backends = {"torch": _seconds(partial(exact.encoder_layer, x, layer))}
    missing = []
    for name in ("int16", "w8a8"):
        try:
            backend = registry.create(name)
        except BackendUnavailable as e:
            missing.append(str(e))
            continue
        prepared = _layer(shape, weights, backend)
        _check(name, backend.encoder_layer(x, prepared), expected)
        backends[name] = _seconds(partial(backend.encoder_layer, x, prepared))
    nothing = _NoProducts()
    free = _layer(shape, weights, nothing)

    def without_projections() -> Tensor:
        attended = exact.qkv_attention(nothing.norm_linear(x, free.attention_norm, free.qkv), free.heads, free.scale)
        y = nothing.linear_add(attended, free.out, x)
        return exact.feed_forward(y, layer.final_norm, layer.fc1, layer.fc2)

    without_projections()
    nothing.encoder_layer(x, free)
    rest = _seconds(without_projections), _seconds(partial(nothing.encoder_layer, x, free))
    return CpuLayer(shape, backends, *rest, tuple(missing))


def _random_weights(shape: LayerShape) -> tuple[_Linear, ...]:
    """Weights and biases of q k v, out, fc1 and fc2, of such a size that results neither vanish nor overflow."""
    d, hidden = shape.width, shape.hidden
    return tuple((_normal(n, k) / k**0.5, _normal(n)) for n, k in ((3 * d, d), (d, d), (hidden, d), (d, hidden)))


def _layer(shape: LayerShape, weights: Sequence[_Linear], backend: Backend) -> Any:
    """The layer as `prepare_layer` returns it."""
    d = shape.width
    norm = backend.prepare_norm(Norm(torch.ones(d), torch.zeros(d), 1e-5))
    qkv, out, fc1, fc2 = (backend.prepare(weight, bias) for weight, bias in weights)
    scale = (d // shape.heads) ** -0.5
    return backend.prepare_layer(EncoderLayer(norm, qkv, out, norm, fc1, fc2, shape.heads, scale))


def _check(name: str, found: Tensor, expected: Tensor) -> None:
    error = float((found - expected).norm() / expected.norm())
    if not error <= BROKEN:
        raise ProductFailed(
            f"a layer by backend {name} is wrong, relative error {error:.2g}: its time would mean nothing"
        )


def _seconds(call: Callable[[], object]) -> float:
    """The median time of a call that ran before."""
    times: list[float] = []
    while not times or (sum(times) < _ENOUGH_SECONDS and len(times) < _MOST_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
