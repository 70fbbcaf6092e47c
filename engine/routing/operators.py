"""Custom operators (`torch.ops.tilewhisper.*`) for every routed product and block of the encoder.

Each takes activations and a `Launch`, runs it through the launch's router, and returns a fresh tensor. Activations that
lie on a device pass through as `DeviceTensor`s.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.opaque_object import get_opaque_type_name

from tilewhisper.engine.routing.router import Launch
from tilewhisper.kernels.device_tensor import DeviceTensor


def _operator(name: str, inputs: str, run: Callable[..., Tensor], shape: Callable[..., Tensor]) -> Any:
    """Define an operator. `torch.library.custom_op` would do, but its first call imports torch's compiler: 1.3 s."""
    qualified = f"tilewhisper::{name}"
    torch.library.define(qualified, f"({inputs}, {get_opaque_type_name(Launch)} launch) -> Tensor")
    torch.library.impl(qualified, "default", run)
    torch.library.register_fake(qualified, shape)
    torch.library.register_torch_dispatch(
        qualified, DeviceTensor, lambda mode, func, types, args, kwargs: run(*args, **kwargs)
    )
    return getattr(torch.ops.tilewhisper, name).default


def _more(keys: Tensor | None, values: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if keys is None or values is None else (keys, values)


def _linear_shape(x: Tensor, launch: Launch) -> Tensor:
    return x.new_empty((*x.shape[:-1], launch.weights[0].shape[0]))


def _like_x(x: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape)


linear = _operator("linear", "Tensor x", lambda x, launch: launch.router.linear(launch, x), _linear_shape)
"""x (..., k) through the launch's backend: (..., n)."""

linear_gelu = _operator(
    "linear_gelu", "Tensor x", lambda x, launch: launch.router.linear_gelu(launch, x), _linear_shape
)
"""`linear`, then GELU."""

linear_add = _operator(
    "linear_add",
    "Tensor x, Tensor residual",
    lambda x, residual, launch: launch.router.linear_add(launch, x, residual),
    lambda x, residual, launch: residual.new_empty(residual.shape),
)
"""`linear` plus a residual (..., n)."""

norm_linear = _operator(
    "norm_linear", "Tensor x", lambda x, launch: launch.router.norm_linear(launch, x), _linear_shape
)
"""`linear` of x's layer norm."""

conv_gelu = _operator(
    "conv_gelu",
    "Tensor x, int stride",
    lambda x, stride, launch: launch.router.conv_gelu(launch, x, stride),
    lambda x, stride, launch: x.new_empty((x.shape[0], (x.shape[1] - 1) // stride + 1, launch.weights[0].shape[0])),
)
"""x (batch, positions, channels) -> GELU of its convolution (batch, positions / stride, n)."""

matmul = _operator(
    "matmul",
    "Tensor a, Tensor b",
    lambda a, b, launch: launch.router.matmul(launch, a, b),
    lambda a, b, launch: a.new_empty((*a.shape[:-1], b.shape[-1])),
)
"""a (..., m, k) @ b (..., k, n): (..., m, n)."""

attention = _operator(
    "attention",
    "Tensor qkv, int heads, float scale, Tensor? bias, Tensor? keys, Tensor? values",
    lambda qkv, heads, scale, bias, keys, values, launch: launch.router.attention(
        launch, qkv, heads, scale, bias, _more(keys, values)
    ),
    lambda qkv, *others: qkv.new_empty((*qkv.shape[:-1], qkv.shape[-1] // 3)),
)
"""Self-attention of qkv (batch, positions, 3 * d_model): (batch, positions, d_model). See `Backend.qkv_attention`."""

feed_forward = _operator("feed_forward", "Tensor x", lambda x, launch: launch.router.feed_forward(launch, x), _like_x)
"""x (..., k) plus fc2(GELU(fc1(norm of x)))."""

encoder_layer = _operator(
    "encoder_layer",
    "Tensor x, Tensor? bias, Tensor? keys, Tensor? values",
    lambda x, bias, keys, values, launch: launch.router.encoder_layer(launch, x, bias, _more(keys, values)),
    _like_x,
)
"""x (batch, positions, d_model) through a whole encoder layer."""
