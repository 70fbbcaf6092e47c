"""Send every encoder product where the policy says, and count what ran where.

`apply_policy(model, policy)` swaps the encoder's projections for `RoutedLinear` modules that share the weights, so the
state dict stays as it was, and returns the `Router` behind them. A projection is one call of the custom op
`tilewhisper::linear`, which finds its router by key; the two attention products call the router directly.

A *launch* is one call of a backend. Where the q, k and v projections of a layer go to the same backend they share a
launch, and so do the two attention products where that backend has fused attention.
"""

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from tilewhisper.engine.errors import PolicyError, RoutingError
from tilewhisper.engine.policy import Policy, Route
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import AttentionBackend, Backend, BackendUnavailable, ProductFailed, ProductShape
from tilewhisper.models.catalog import Site, sites_of

_routers: WeakValueDictionary[str, "Router"] = WeakValueDictionary()
_serial = itertools.count()


@torch.library.custom_op("tilewhisper::linear", mutates_args=())
def routed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, router: str, launch: str) -> Tensor:
    """x (..., k) through the launch's backend: (..., n). `weight` (n, k) and `bias` are what the launch prepared."""
    return _routers[router].linear(launch, x, weight, bias)


@routed_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, router: str, launch: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@dataclass
class SiteCount:
    """What one site has run."""

    calls: Counter[str] = field(default_factory=Counter)
    """Calls by the backend that ran them."""
    seconds: float = 0.0
    """Wall time; a shared launch's time is split by multiply-adds."""
    failures: Counter[str] = field(default_factory=Counter)
    """Reasons for which a running call went to the fallback."""


Counts = defaultdict[str, SiteCount]


@dataclass
class SitePlan:
    """What one site asks for and where it starts."""

    route: Route
    launch: str
    """The launch this site is part of; sites that share one run together."""
    refusal: str | None = None
    """Why the requested backend was never used, when a stated fallback took its place from the start."""

    @property
    def backend(self) -> str:
        """The backend calls start at."""
        return self.route.fallback if self.refusal and self.route.fallback else self.route.backend


class RoutedLinear(nn.Module):
    """A linear layer that runs where its router sends it. Holds the very parameters of the layer it replaced."""

    def __init__(self, replaced: "nn.Linear | RoutedLinear", router: "Router", launch: str) -> None:
        super().__init__()
        self.weight = replaced.weight
        self.register_parameter("bias", replaced.bias)
        self.router = router
        self.launch = launch

    def forward(self, x: Tensor) -> Tensor:
        """x (..., k) -> (..., n)"""
        y: Tensor = routed_linear(x, self.weight, self.bias, self.router.key, self.launch)
        return y

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, launch={self.launch!r}"


class FusedLinear(nn.Module):
    """Several linear layers of one input run as one product. Their parameters become slices of the fused ones."""

    def __init__(self, parts: Sequence[nn.Linear | RoutedLinear], router: "Router", launch: str) -> None:
        super().__init__()
        self.weight, self.bias = fuse(parts)
        self.sizes = [part.weight.shape[0] for part in parts]
        self.router = router
        self.launch = launch

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (..., k) -> one (..., n) a part"""
        y: Tensor = routed_linear(x, self.weight, self.bias, self.router.key, self.launch)
        return y.split(self.sizes, dim=-1)


def fuse(parts: Sequence[nn.Linear | RoutedLinear]) -> tuple[Tensor, Tensor]:
    """Join layers of one input into one weight (sum of n, k) and bias (sum of n), zeros where a part has none.

    The parts' parameters are re-pointed at slices of the result: same names, same values, and no second copy.
    """
    weight = torch.cat([part.weight.data for part in parts])
    bias = torch.cat([part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in parts])
    row = 0
    for part in parts:
        rows = slice(row, row := row + len(part.weight))
        part.weight.data = weight[rows]
        if part.bias is not None:
            part.bias.data = bias[rows]
    return weight, bias


class Router:
    """Holds the backends a policy needs, the weights prepared for them, and the count of what ran."""

    def __init__(self, routes: Sequence[Route], create: Callable[[str], Backend] = registry.create) -> None:
        """Raises UnknownBackend, BackendUnavailable, or PolicyError when a site's request cannot be met."""
        self.key = f"router-{next(_serial)}"
        self._create = create
        self._backends: dict[str, Backend] = {}
        self._prepared: dict[tuple[str, str], Any] = {}
        self.plans: dict[str, SitePlan] = {}
        self._launches: dict[str, tuple[SitePlan, ...]] = {}
        self._counts: Counts = defaultdict(SiteCount)
        for route in routes:
            self._add(route)
        _routers[self.key] = self

    def share_launch(self, names: Sequence[str], shape: ProductShape | None = None) -> str | None:
        """Make the named sites one launch: its name, or None where they start at different backends.

        `shape` is that of the joint product; None too where the backend cannot take it.
        """
        plans = tuple(self.plans[name] for name in names)
        if len({(plan.backend, plan.route.fallback) for plan in plans}) > 1:
            return None
        if shape and self._backend(plans[0].backend).supports(shape):
            return None
        parent = names[0].rpartition(".")[0]
        launch = f"{parent}.{{{','.join(name.rpartition('.')[2] for name in names)}}}"
        for plan in plans:
            plan.launch = launch
        self._launches[launch] = plans
        return launch

    def prepare(self, launch: str, weight: Tensor, bias: Tensor | None) -> None:
        """Have the launch's weights (n, k) ready for its backend before the first call. Raises RoutingError."""
        first, *_ = plans = self._launches[launch]
        try:
            self._weights_for(first.backend, launch, weight, bias)
        except ProductFailed as e:
            fallback = _fallback_after(e, launch, first)
            for plan in plans:
                plan.refusal = str(e)
            self._weights_for(fallback, launch, weight, bias)

    def linear(self, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (..., k) -> (..., n), where the launch's route says. Raises RoutingError."""
        return self._run(launch, lambda name: self._linear_on(name, launch, x, weight, bias))

    def matmul(self, site: str, a: Tensor, b: Tensor) -> Tensor:
        """a (..., m, k) @ b (..., k, n), where the site's route says. Raises RoutingError."""
        return self._run(site, lambda name: self._backend(name).matmul(a, b))

    def attention(self, launch: str, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Both attention products of a shared launch as one pass. Raises RoutingError."""

        def run(name: str) -> Tensor:
            backend = self._backend(name)
            if isinstance(backend, AttentionBackend):
                return backend.attention(q, k, v, scale)
            return backend.matmul(torch.softmax(backend.matmul(q, k.mT) * scale, dim=-1), v)

        return self._run(launch, run)

    def has_fused_attention(self, site: str) -> bool:
        return isinstance(self._backend(self.plans[site].backend), AttentionBackend)

    @contextmanager
    def counting(self, counts: Counts) -> Iterator[None]:
        """Count what runs inside by site name in `counts`."""
        before, self._counts = self._counts, counts
        try:
            yield
        finally:
            self._counts = before

    def close(self) -> None:
        """Release prepared weights and devices."""
        self._prepared.clear()
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()

    def _add(self, route: Route) -> None:
        if refusal := self._why_not(route.backend, route.site):
            if route.fallback is None:
                raise PolicyError(f"{route.site.name} ({route.rule}): {refusal}; no fallback is stated")
            if second := self._why_not(route.fallback, route.site):
                raise PolicyError(f"{route.site.name} ({route.rule}): {refusal}; nor can its fallback run: {second}")
        plan = SitePlan(route, launch=route.site.name, refusal=refusal)
        self.plans[route.site.name] = plan
        self._launches[route.site.name] = (plan,)

    def _why_not(self, backend: str, site: Site) -> str | None:
        try:
            reason = self._backend(backend).supports(shape_of(site))
        except BackendUnavailable as e:
            return str(e)
        return f"backend {backend!r} cannot take it: {reason}" if reason else None

    def _backend(self, name: str) -> Backend:
        if name not in self._backends:
            self._backends[name] = self._create(name)
        return self._backends[name]

    def _linear_on(self, name: str, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._backend(name).linear(x, self._weights_for(name, launch, weight, bias))

    def _weights_for(self, name: str, launch: str, weight: Tensor, bias: Tensor | None) -> Any:
        key = (name, launch)
        if key not in self._prepared:
            self._prepared[key] = self._backend(name).prepare(weight, bias)
        return self._prepared[key]

    def _run(self, launch: str, product: Callable[[str], Tensor]) -> Tensor:
        plans = self._launches[launch]
        ran = plans[0].backend
        started = time.perf_counter()
        try:
            result = product(ran)
        except ProductFailed as e:
            ran = _fallback_after(e, launch, plans[0])
            for plan in plans:
                self._counts[plan.route.site.name].failures[str(e)] += 1
            result = product(ran)
        self._count(plans, ran, time.perf_counter() - started)
        return result

    def _count(self, plans: Sequence[SitePlan], ran: str, seconds: float) -> None:
        work = [shape_of(plan.route.site).multiply_adds for plan in plans]
        for plan, share in zip(plans, work, strict=True):
            count = self._counts[plan.route.site.name]
            count.calls[ran] += 1
            count.seconds += seconds * share / sum(work)


def _fallback_after(failure: ProductFailed, launch: str, plan: SitePlan) -> str:
    """The backend that may take over from the one that failed. Raises RoutingError where the policy states none."""
    fallback = plan.route.fallback
    if fallback is None or fallback == plan.backend:
        raise RoutingError(
            f"{launch} failed on {plan.backend!r}: {failure}; the policy states no fallback"
        ) from failure
    return fallback


def shape_of(site: Site) -> ProductShape:
    return ProductShape(site.batch, site.m, site.k, site.n)


@dataclass(frozen=True)
class LayerRoutes:
    """One encoder layer's products, each bound to where it runs."""

    qkv: Callable[[Tensor], tuple[Tensor, ...]]
    """(batch, positions, d_model) -> q, k, v of that shape"""
    attention: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    """q, k, v (batch, heads, positions, head_dim), scale -> the same shape"""


def apply_policy(model: Any, policy: Policy, create: Callable[[str], Backend] = registry.create) -> "RoutedEncoder":
    """Route the encoder of a transformers Whisper model. A model that is routed already is routed anew.

    Raises PolicyError (a rule that matches nothing, a request that cannot be met) and KernelError (unknown backend,
    one that cannot run here) before anything is changed.
    """
    encoder = model.model.encoder
    router = Router(policy.resolve(sites_of(model.config)), create)
    layers = tuple(_route_layer(layer, f"layers.{i}", router) for i, layer in enumerate(encoder.layers))
    return RoutedEncoder(router, layers)


@dataclass(frozen=True)
class RoutedEncoder:
    """The router of an encoder (kept alive by this object) and its layers' products."""

    router: Router
    layers: tuple[LayerRoutes, ...]


def _route_layer(layer: nn.Module, name: str, router: Router) -> LayerRoutes:
    attention: Any = layer.self_attn
    for owner, prefix, leaf in (
        *((attention, f"{name}.self_attn", leaf) for leaf in ("q_proj", "k_proj", "v_proj", "out_proj")),
        *((layer, name, leaf) for leaf in ("fc1", "fc2")),
    ):
        setattr(owner, leaf, RoutedLinear(getattr(owner, leaf), router, f"{prefix}.{leaf}"))
    routes = LayerRoutes(
        _route_qkv(attention, f"{name}.self_attn", router),
        _route_attention(f"{name}.self_attn.qk", f"{name}.self_attn.av", router),
    )
    for linear in (attention.out_proj, layer.fc1, layer.fc2):
        router.prepare(linear.launch, linear.weight, linear.bias)  # type: ignore[union-attr, arg-type]
    return routes


def _route_qkv(attention: Any, prefix: str, router: Router) -> Callable[[Tensor], tuple[Tensor, ...]]:
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    q = router.plans[f"{prefix}.q_proj"].route.site
    joint = ProductShape(q.batch, q.m, q.k, 3 * q.n)
    if launch := router.share_launch([part.launch for part in parts], joint):
        fused = FusedLinear(parts, router, launch)
        router.prepare(launch, fused.weight, fused.bias)
        return fused
    for part in parts:
        router.prepare(part.launch, part.weight, part.bias)
    return lambda x: tuple(part(x) for part in parts)


def _route_attention(qk: str, av: str, router: Router) -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    if router.has_fused_attention(qk) and (launch := router.share_launch([qk, av])):
        return lambda q, k, v, scale: router.attention(launch, q, k, v, scale)

    def two_products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        scores = router.matmul(qk, q, k.mT)
        return router.matmul(av, torch.softmax(scores * scale, dim=-1), v)

    return two_products
