"""Put a router into a Whisper model: swap the encoder's projections, share the weights.

`apply_policy(model, policy)` swaps the encoder's projections for `RoutedLinear` modules that hold the very parameters
of the layers they replace, so the state dict stays as it was. A weight that stays in its file is read when a backend
prepares it. Every product is a call of a custom operator (see
operators.py). Sites that start at one backend run as one launch where that backend has such a block: all of a layer;
else q, k and v; both attention products; fc1 and fc2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tilewhisper.engine.routing import operators
from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.prepared import WeightPreparation
from tilewhisper.engine.routing.router import Launch, MoreKV, Router
from tilewhisper.engine.routing.sites import sites_of
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import (
    Backend,
    EncoderLayer,
    LayerShape,
    Norm,
    ProductShape,
    attention_weights,
    join_heads,
    split_heads,
)
from tilewhisper.kernels.device_tensor import to_host
from tilewhisper.models.checkpoint.stored_tensor import StoredTensor, joined

Attention = Callable[[Tensor, Tensor | None, MoreKV], Tensor]
"""(qkv, bias, more) -> (batch, positions, d_model); see `Backend.qkv_attention`."""


class RoutedLinear(nn.Module):
    """A linear layer that runs where its router sends it. Holds the very parameters of the layer it replaced."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, replaced: "nn.Linear | RoutedLinear", router: Router, site: str, preparation: WeightPreparation
    ) -> None:
        super().__init__()
        parameters: dict[str, nn.Parameter | None] = dict(replaced.named_parameters())
        self.register_parameter("weight", parameters["weight"])
        self.register_parameter("bias", parameters.get("bias"))
        weight, bias = self.weight, self.bias
        self.launch = router.launch(site, [weight], lambda backend: preparation.linear(backend, site, weight, bias))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., k) -> (..., n)"""
        y: Tensor = operators.linear(x, self.launch)
        return y

    def gelu(self, x: Tensor) -> Tensor:
        """x (..., k) -> GELU of (..., n)"""
        y: Tensor = operators.linear_gelu(x, self.launch)
        return y

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """x (..., k) -> (..., n) plus a residual of that shape"""
        y: Tensor = operators.linear_add(x, residual, self.launch)
        return y

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, launch={self.launch.name!r}"


def fuse(parts: Sequence[nn.Linear | RoutedLinear]) -> tuple[Tensor, Tensor]:
    """Join layers of one input into one weight (sum of n, k) and bias (sum of n), zeros where a part has none.

    Weights that stay in their file stay there. Else the parts' parameters become slices of the result: same names, same
    values, and no second copy.
    """
    weight = joined([part.weight for part in parts])
    bias = torch.cat([torch.zeros(len(part.weight)) if part.bias is None else part.bias for part in parts])
    row = 0
    for part in parts:
        rows = slice(row, row := row + len(part.weight))
        if not isinstance(weight, StoredTensor):
            part.weight.data = weight[rows]
        if part.bias is not None:
            part.bias.data = bias[rows]
    return weight, bias


@dataclass(frozen=True)
class RoutedLayer:
    """One encoder layer, bound to where it runs. x is (batch, positions, d_model), on the host or a device."""

    qkv: Callable[[Tensor], Tensor]
    """x, normed first -> (batch, positions, 3 * d_model)"""
    rest: Callable[[Tensor, Tensor, Tensor | None, MoreKV], Tensor]
    """(qkv, x, bias, more) -> the layer's output; `bias` and `more` are as in `Backend.qkv_attention`."""
    run: Callable[[Tensor, Tensor | None, MoreKV], Tensor]
    """(x, bias, more) -> the layer's output, by as few launches as its backends allow."""


@dataclass(frozen=True)
class RoutedEncoder:
    """An encoder's router and its routed parts."""

    router: Router
    stem: tuple[Callable[[Tensor], Tensor], ...]
    """The convolutions with their GELU: (batch, positions, channels) -> the input of the next"""
    layers: tuple[RoutedLayer, ...]
    heads: int


def apply_policy(
    model: Any,
    policy: Policy,
    create: Callable[[str], Backend] = registry.create,
    preparation: WeightPreparation | None = None,
) -> RoutedEncoder:
    """Route the encoder of a transformers Whisper model. A model that is already routed is routed again.

    `preparation` finds weights that an earlier start prepared, for a checkpoint's own modules.
    Raises PolicyError (a rule that matches nothing, a request that cannot be met) and KernelError (unknown backend,
    or one that cannot run here) before anything is changed.
    """
    encoder = model.model.encoder
    router = Router(policy.resolve(sites_of(model.config)), create)
    preparation = preparation or WeightPreparation()
    stem = tuple(_route_conv(getattr(encoder, name), name, router, preparation) for name in ("conv1", "conv2"))
    layers = tuple(
        _LayerRouting(layer, f"layers.{i}", router, preparation).route() for i, layer in enumerate(encoder.layers)
    )
    return RoutedEncoder(router, stem, layers, int(model.config.encoder_attention_heads))


def norm_of(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight, module.bias, module.eps)


def _route_conv(
    conv: nn.Conv1d, site: str, router: Router, preparation: WeightPreparation
) -> Callable[[Tensor], Tensor]:
    (stride,), weight, bias = conv.stride, conv.weight, conv.bias
    launch = router.launch(site, [weight], lambda backend: preparation.conv(backend, site, weight, bias))
    router.prepare(launch)
    return lambda x: operators.conv_gelu(x, stride, launch)


class _LayerRouting:
    """Routes one encoder layer: swaps its projections and joins launches."""

    def __init__(self, layer: Any, name: str, router: Router, preparation: WeightPreparation) -> None:
        self._name, self._router, self._preparation = name, router, preparation
        attention = layer.self_attn
        for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self._swap(attention, leaf, f"{name}.self_attn.{leaf}")
        for leaf in ("fc1", "fc2"):
            self._swap(layer, leaf, f"{name}.{leaf}")
        self._projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._out, self._fc1, self._fc2 = attention.out_proj, layer.fc1, layer.fc2
        self._attention_norm, self._final_norm = norm_of(layer.self_attn_layer_norm), norm_of(layer.final_layer_norm)
        self._heads, self._scale = int(attention.num_heads), float(attention.scaling)
        site = router.plans[f"{name}.fc1"].route.site
        self._shape = LayerShape(site.m, site.k, self._heads, site.n)

    def route(self) -> RoutedLayer:
        sites = [site for site in self._router.plans if site.startswith(f"{self._name}.")]
        if self._router.can_join(sites, lambda backend: backend.supports_block("encoder_layer", self._shape)):
            return self._whole(sites)
        router, projections, out = self._router, self._projections, self._out
        qkv, attention, feed_forward = self._qkv(), self._attention(), self._feed_forward()
        router.prepare(out.launch)

        def rest(qkv: Tensor, x: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
            return feed_forward(out.add(attention(qkv, bias, more), x))

        def run(x: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
            return rest(qkv(x), x, bias, more)

        def run_on_device(x: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
            return run(router.place(x, projections[0].launch), bias, more)  # read twice: by the norm, as the residual

        return RoutedLayer(qkv, rest, run_on_device if router.is_on_device(projections[0].launch) else run)

    def _whole(self, sites: Sequence[str]) -> RoutedLayer:
        qkv = self._joint_qkv()

        def prepare(backend: Backend) -> Any:
            norm, projections = qkv.prepared(backend)
            out, feed_forward = self._out.launch.prepared(backend), self._prepare_feed_forward(backend)
            layer = EncoderLayer(norm, projections, out, *feed_forward, self._heads, self._scale)
            return backend.prepare_layer(layer)

        weights = [*qkv.weights, *(linear.weight for linear in (self._out, self._fc1, self._fc2))]
        launch = self._router.join(f"{self._name}.*", sites, weights, prepare)
        self._router.prepare(launch)

        def whole(x: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
            y: Tensor = operators.encoder_layer(x, bias, *(more or (None, None)), launch)
            return y

        return RoutedLayer(
            lambda x: operators.norm_linear(x, qkv), lambda _, x, bias, more: whole(x, bias, more), whole
        )

    def _qkv(self) -> Callable[[Tensor], Tensor]:
        q = self._router.plans[f"{self._name}.self_attn.q_proj"].route.site
        joint = ProductShape(q.batch, q.m, q.k, 3 * q.n)
        parts, norm = self._projections, self._attention_norm
        if self._router.can_join([part.launch.name for part in parts], lambda backend: backend.supports(joint)):
            launch = self._joint_qkv()
            self._router.prepare(launch)
            return lambda x: operators.norm_linear(x, launch)
        for part in parts:
            self._router.prepare(part.launch)

        def one_by_one(x: Tensor) -> Tensor:
            normed = norm(to_host(x))
            return torch.cat([to_host(part(normed)) for part in parts], dim=-1)

        return one_by_one

    def _joint_qkv(self) -> Launch:
        weight, bias = fuse(self._projections)
        norm, preparation, name = (
            self._attention_norm,
            self._preparation,
            f"{self._name}.self_attn.{{q_proj,k_proj,v_proj}}",
        )
        return self._router.join(
            name,
            [part.launch.name for part in self._projections],
            [weight],
            lambda backend: (backend.prepare_norm(norm), preparation.linear(backend, name, weight, bias)),
        )

    def _attention(self) -> Attention:
        qk, av = (f"{self._name}.self_attn.{leaf}" for leaf in ("qk", "av"))
        heads, scale = self._heads, self._scale
        if self._router.can_join([qk, av], lambda backend: backend.supports_block("attention", self._shape)):
            joint = self._router.join(f"{self._name}.self_attn.{{qk,av}}", [qk, av])
            return lambda qkv, bias, more: operators.attention(qkv, heads, scale, bias, *(more or (None, None)), joint)
        first, second = self._router.launch(qk), self._router.launch(av)

        def two_products(qkv: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
            q, k, v = split_heads(to_host(qkv), heads, more)
            products = to_host(operators.matmul(q, k.mT, first))
            return join_heads(to_host(operators.matmul(attention_weights(products, scale, bias), v, second)))

        return two_products

    def _feed_forward(self) -> Callable[[Tensor], Tensor]:
        fc1, fc2, norm = self._fc1, self._fc2, self._final_norm
        sites = [fc1.launch.name, fc2.launch.name]
        if self._router.can_join(sites, lambda backend: backend.supports_block("feed_forward", self._shape)):
            name, weights = f"{self._name}.{{fc1,fc2}}", [fc1.weight, fc2.weight]
            launch = self._router.join(name, sites, weights, self._prepare_feed_forward)
            self._router.prepare(launch)
            return lambda x: operators.feed_forward(x, launch)
        for linear in (fc1, fc2):
            self._router.prepare(linear.launch)

        def two_products(x: Tensor) -> Tensor:
            y: Tensor = fc2.add(fc1.gelu(norm(to_host(x))), x)
            return y

        return two_products

    def _prepare_feed_forward(self, backend: Backend) -> tuple[Any, Any, Any]:
        return (
            backend.prepare_norm(self._final_norm),
            self._fc1.launch.prepared(backend),
            self._fc2.launch.prepared(backend),
        )

    def _swap(self, owner: Any, leaf: str, site: str) -> None:
        setattr(owner, leaf, RoutedLinear(getattr(owner, leaf), self._router, site, self._preparation))
