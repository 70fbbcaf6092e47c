"""Put a router into a Whisper model: swap the encoder's projections, share the weights.

`apply_policy(model, policy)` swaps the encoder's projections for `RoutedLinear` modules that hold the very parameters
of the layers they replace, so the state dict stays as it was. A projection is one call of a custom op
(`tilewhisper::linear`, `norm_linear`, `linear_gelu`, `linear_add`); convolutions and attention products call the router
directly. Where the q, k and v projections of a layer go to the same backend they share a launch, and so do the two
attention products, or fc1 and fc2 (`tilewhisper::feed_forward`), where that backend fuses them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.router import Router, router_of, weights_of
from tilewhisper.engine.routing.sites import sites_of
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, Norm, ProductShape


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, router: str, launch: str) -> Tensor:
    return router_of(router).linear(launch, x, weight, bias)


def _norm_linear(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
    router: str,
    launch: str,
) -> Tensor:
    return router_of(router).norm_linear(launch, x, Norm(norm_weight, norm_bias, eps), weight, bias)


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, router: str, launch: str) -> Tensor:
    return router_of(router).linear_gelu(launch, x, weight, bias)


def _linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, router: str, launch: str) -> Tensor:
    return router_of(router).linear_add(launch, x, weight, bias, residual)


def _feed_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    router: str,
    launch: str,
) -> Tensor:
    norm = Norm(norm_weight, norm_bias, eps)
    return router_of(router).feed_forward(launch, x, norm, [(weight1, bias1), (weight2, bias2)])


def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None, router: str, launch: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _linear_add_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, router: str, launch: str
) -> Tensor:
    return torch.empty_like(residual)


def _norm_linear_shape(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
    router: str,
    launch: str,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _like_x(x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x)


def _operator(name: str, inputs: str, run: Callable[..., Tensor], shape: Callable[..., Tensor]) -> Any:
    """A custom operator. Not by `torch.library.custom_op`, whose first call imports torch's compiler: 1.3 s."""
    qualified = f"tilewhisper::{name}"
    torch.library.define(qualified, f"({inputs}, str router, str launch) -> Tensor")
    torch.library.impl(qualified, "default", run)
    torch.library.register_fake(qualified, shape)
    return getattr(torch.ops.tilewhisper, name).default


routed_linear = _operator("linear", "Tensor x, Tensor weight, Tensor? bias", _linear, _linear_shape)
"""x (..., k) through the launch's backend: (..., n). `weight` (n, k) and `bias` are what the launch prepared."""

routed_norm_linear = _operator(
    "norm_linear",
    "Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor weight, Tensor? bias",
    _norm_linear,
    _norm_linear_shape,
)
"""`routed_linear` of x's layer norm."""

routed_feed_forward = _operator(
    "feed_forward",
    "Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, "
    "Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2",
    _feed_forward,
    _like_x,
)
"""x (..., k) plus what two layers make of its norm, GELU between them: (..., k)."""

routed_linear_gelu = _operator("linear_gelu", "Tensor x, Tensor weight, Tensor? bias", _linear_gelu, _linear_shape)
"""`routed_linear`, then GELU."""

routed_linear_add = _operator(
    "linear_add", "Tensor x, Tensor weight, Tensor? bias, Tensor residual", _linear_add, _linear_add_shape
)
"""`routed_linear` plus a residual (..., n)."""


class RoutedLinear(nn.Module):
    """A linear layer that runs where its router sends it. Holds the very parameters of the layer it replaced."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, replaced: "nn.Linear | RoutedLinear", router: Router, launch: str) -> None:
        super().__init__()
        parameters: dict[str, nn.Parameter | None] = dict(replaced.named_parameters())
        self.register_parameter("weight", parameters["weight"])
        self.register_parameter("bias", parameters.get("bias"))
        self.router = router
        self.launch = launch

    def forward(self, x: Tensor) -> Tensor:
        """x (..., k) -> (..., n)"""
        y: Tensor = routed_linear(x, self.weight, self.bias, self.router.key, self.launch)
        return y

    def gelu(self, x: Tensor) -> Tensor:
        """x (..., k) -> GELU of (..., n)"""
        y: Tensor = routed_linear_gelu(x, self.weight, self.bias, self.router.key, self.launch)
        return y

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (..., k) -> (..., n) plus a residual of that shape"""
        y: Tensor = routed_linear_add(x, self.weight, self.bias, residual, self.router.key, self.launch)
        return y

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, launch={self.launch!r}"


class FusedLinear(nn.Module):
    """Several linear layers of one input run as one product. Their parameters become slices of the fused ones."""

    def __init__(self, parts: Sequence[nn.Linear | RoutedLinear], router: Router, launch: str) -> None:
        super().__init__()
        self.weight, self.bias = fuse(parts)
        self.sizes = [part.weight.shape[0] for part in parts]
        self.router = router
        self.launch = launch

    def forward(self, x: Tensor, norm: Norm) -> tuple[Tensor, ...]:
        """x (..., k), normed -> one (..., n) a part"""
        scaled = norm.weight, norm.bias, norm.eps
        y: Tensor = routed_norm_linear(x, *scaled, self.weight, self.bias, self.router.key, self.launch)
        return torch.split(y, self.sizes, dim=-1)


def fuse(
    parts: Sequence[nn.Linear | RoutedLinear], layout: Callable[[Tensor], Tensor] = torch.Tensor.contiguous
) -> tuple[Tensor, Tensor]:
    """Join layers of one input into one weight (sum of n, k) and bias (sum of n), zeros where a part has none.

    The parts' parameters are re-pointed at slices of the result: same names, same values, and no second copy.
    `layout` may lay the weight out otherwise than row by row.
    """
    weight = layout(torch.cat([part.weight.data for part in parts]))
    bias = torch.cat([part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in parts])
    row = 0
    for part in parts:
        rows = slice(row, row := row + len(part.weight))
        part.weight.data = weight[rows]
        if part.bias is not None:
            part.bias.data = bias[rows]
    return weight, bias


@dataclass(frozen=True)
class LayerRoutes:
    """One encoder layer's products, each bound to where it runs."""

    qkv: Callable[[Tensor], tuple[Tensor, ...]]
    """(batch, positions, d_model), normed first -> q, k, v of that shape"""
    attention: Callable[[Tensor, Tensor, Tensor, float, Tensor | None], Tensor]
    """q, k, v (batch, heads, positions, head_dim), scale, a bias for each key -> the same shape as q"""
    feed_forward: Callable[[Tensor], Tensor]
    """(batch, positions, d_model) -> that plus the feed-forward half of the layer"""


@dataclass(frozen=True)
class RoutedEncoder:
    """An encoder's router, and its products."""

    router: Router
    stem: tuple[Callable[[Tensor], Tensor], ...]
    """The convolutions with their GELU: (batch, positions, channels) -> the same of the next"""
    layers: tuple[LayerRoutes, ...]


def apply_policy(model: Any, policy: Policy, create: Callable[[str], Backend] = registry.create) -> RoutedEncoder:
    """Route the encoder of a transformers Whisper model. A model that is routed already is routed anew.

    Raises PolicyError (a rule that matches nothing, a request that cannot be met) and KernelError (unknown backend,
    one that cannot run here) before anything is changed.
    """
    encoder = model.model.encoder
    router = Router(policy.resolve(sites_of(model.config)), create)
    stem = tuple(_route_conv(getattr(encoder, name), name, router) for name in ("conv1", "conv2"))
    layers = tuple(_route_layer(layer, f"layers.{i}", router) for i, layer in enumerate(encoder.layers))
    return RoutedEncoder(router, stem, layers)


def _route_conv(conv: nn.Conv1d, site: str, router: Router) -> Callable[[Tensor], Tensor]:
    (stride,) = conv.stride
    router.prepare(site, conv.weight, conv.bias)
    return lambda x: router.conv_gelu(site, x, conv.weight, conv.bias, stride)


def _route_layer(layer: Any, name: str, router: Router) -> LayerRoutes:
    attention = layer.self_attn
    for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
        _swap(attention, leaf, f"{name}.self_attn.{leaf}", router)
    for leaf in ("fc1", "fc2"):
        _swap(layer, leaf, f"{name}.{leaf}", router)
    for linear in (attention.out_proj, layer.fc1, layer.fc2):
        router.prepare(linear.launch, linear.weight, linear.bias)
    return LayerRoutes(
        _route_qkv(attention, norm_of(layer.self_attn_layer_norm), f"{name}.self_attn", router),
        _route_attention(f"{name}.self_attn.qk", f"{name}.self_attn.av", router),
        _route_feed_forward(layer, norm_of(layer.final_layer_norm), name, router),
    )


def norm_of(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight, module.bias, module.eps)


def _swap(owner: Any, leaf: str, site: str, router: Router) -> None:
    setattr(owner, leaf, RoutedLinear(getattr(owner, leaf), router, site))


def _route_qkv(attention: Any, norm: Norm, prefix: str, router: Router) -> Callable[[Tensor], tuple[Tensor, ...]]:
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    q = router.plans[f"{prefix}.q_proj"].route.site
    joint = ProductShape(q.batch, q.m, q.k, 3 * q.n)
    if launch := router.share_launch([part.launch for part in parts], joint):
        fused = FusedLinear(parts, router, launch)
        router.prepare(launch, fused.weight, fused.bias)
        return lambda x: fused(x, norm)
    for part in parts:
        router.prepare(part.launch, part.weight, part.bias)

    def one_by_one(x: Tensor) -> tuple[Tensor, ...]:
        normed = norm(x)
        return tuple(part(normed) for part in parts)

    return one_by_one


def _route_attention(
    qk: str, av: str, router: Router
) -> Callable[[Tensor, Tensor, Tensor, float, Tensor | None], Tensor]:
    if router.fuses_attention(qk) and (launch := router.share_launch([qk, av])):
        return lambda q, k, v, scale, bias: router.attention(launch, q, k, v, scale, bias)

    def two_products(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
        scores = router.matmul(qk, q, k.mT)
        return router.matmul(av, weights_of(scores, scale, bias), v)

    return two_products


def _route_feed_forward(layer: Any, norm: Norm, name: str, router: Router) -> Callable[[Tensor], Tensor]:
    fc1, fc2 = layer.fc1, layer.fc2
    sites = [f"{name}.fc1", f"{name}.fc2"]
    if router.fuses_feed_forward(sites[0]) and (launch := router.share_launch(sites)):
        scaled = norm.weight, norm.bias, norm.eps
        weights = fc1.weight, fc1.bias, fc2.weight, fc2.bias
        return lambda x: routed_feed_forward(x, *scaled, *weights, router.key, launch)
    return lambda x: fc2.add(fc1.gelu(norm(x)), x)
