"""Where products go: the backends a policy needs, the weights prepared for them, and the count of what ran.

A *launch* is one call of a backend. Sites that share a launch run as one product; `routing` decides which can.
Knows sites by name and shape; the model's modules are `routing`'s affair.
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
from torch import Tensor

from tilewhisper.engine.errors import PolicyError, RoutingError
from tilewhisper.engine.routing.policy import DecoderRoute, Route
from tilewhisper.engine.routing.sites import Site
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import (
    AttentionBackend,
    Backend,
    BackendUnavailable,
    BlockBackend,
    DecoderBackend,
    Norm,
    ProductFailed,
    ProductShape,
    Usage,
)

_routers: WeakValueDictionary[str, "Router"] = WeakValueDictionary()
_serial = itertools.count()

TROUBLE = (ProductFailed, BackendUnavailable)
"""What a stated fallback may stand in for: a device may turn out to be unusable only when it is first used."""


@dataclass
class SiteCount:
    """What one site has run."""

    calls: Counter[str] = field(default_factory=Counter)
    """Calls by the backend that ran them."""
    seconds: float = 0.0
    """Wall time; a shared launch's times are split by multiply-adds."""
    device_calls: int = 0
    """Kernel calls on a device; those of a shared launch stand at each of its sites."""
    device_seconds: float = 0.0
    """Of `seconds`, what the device took."""
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


@dataclass(frozen=True)
class DecoderPlan:
    """What a policy asks for the decoder, and what it gets."""

    route: DecoderRoute
    backend: DecoderBackend
    refusal: str | None = None
    """Why the requested backend is not used, when a stated fallback took its place."""


def plan_decoder(route: DecoderRoute, create: Callable[[str], Backend] = registry.create) -> DecoderPlan:
    """The decoder's backend. Raises UnknownBackend, or PolicyError when the request cannot be met."""
    backend, refusal = _step_backend(route.backend, create)
    if backend:
        return DecoderPlan(route, backend)
    if route.fallback is None:
        raise PolicyError(f"decoder: {refusal}; no fallback is stated")
    backend, second = _step_backend(route.fallback, create)
    if not backend:
        raise PolicyError(f"decoder: {refusal}; nor can its fallback run: {second}")
    return DecoderPlan(route, backend, refusal)


def _step_backend(name: str, create: Callable[[str], Backend]) -> tuple[DecoderBackend | None, str]:
    """The backend, or why it is not to be had."""
    if not issubclass(registry.backend_class(name), DecoderBackend):
        able = ", ".join(cls.name for cls in registry.all_classes() if issubclass(cls, DecoderBackend))
        return None, f"backend {name!r} cannot run a decoder; those that can are {able}"
    try:
        backend = create(name)
    except BackendUnavailable as e:
        return None, str(e)
    assert isinstance(backend, DecoderBackend)
    return backend, ""


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
        """Have the launch's weights ready for its backend before the first call: (n, k), or (n, channels, taps) of a
        convolution. Raises RoutingError."""
        first, *_ = plans = self._launches[launch]
        try:
            self._weights_for(first.backend, launch, weight, bias)
        except TROUBLE as e:
            fallback = _fallback_after(e, launch, first)
            for plan in plans:
                plan.refusal = str(e)
            self._weights_for(fallback, launch, weight, bias)

    def linear(self, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (..., k) -> (..., n), where the launch's route says. Raises RoutingError."""
        return self._weighted(launch, weight, bias, lambda backend, w: backend.linear(x, w))

    def norm_linear(self, launch: str, x: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` of x's layer norm. Raises RoutingError."""
        return self._weighted(launch, weight, bias, lambda backend, w: backend.norm_linear(x, norm, w))

    def linear_gelu(self, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear`, then GELU. Raises RoutingError."""
        return self._weighted(launch, weight, bias, lambda backend, w: backend.linear_gelu(x, w))

    def linear_add(self, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
        """`linear` plus a residual (..., n). Raises RoutingError."""
        return self._weighted(launch, weight, bias, lambda backend, w: backend.linear_add(x, w, residual))

    def conv_gelu(self, launch: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        """x (batch, positions, channels) -> GELU of its convolution (batch, positions / stride, n).

        Raises RoutingError.
        """
        taps = weight.shape[-1]
        return self._weighted(launch, weight, bias, lambda backend, w: backend.conv_gelu(x, w, taps, stride))

    def matmul(self, site: str, a: Tensor, b: Tensor) -> Tensor:
        """a (..., m, k) @ b (..., k, n), where the site's route says. Raises RoutingError."""
        return self._run(site, lambda name: self._backend(name).matmul(a, b))

    def attention(self, launch: str, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
        """Both attention products of a shared launch as one pass. Raises RoutingError."""

        def run(name: str) -> Tensor:
            backend = self._backend(name)
            if isinstance(backend, AttentionBackend):
                return backend.attention(q, k, v, scale, bias)
            return backend.matmul(weights_of(backend.matmul(q, k.mT), scale, bias), v)

        return self._run(launch, run)

    def feed_forward(
        self, launch: str, x: Tensor, norm: Norm, weights: Sequence[tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        """x (..., k) plus fc2(GELU(fc1(norm of x))) by a shared launch of fc1 and fc2. Raises RoutingError."""
        sites = [plan.route.site.name for plan in self._launches[launch]]

        def run(name: str) -> Tensor:
            backend = self._backend(name)
            fc1, fc2 = (self._weights_for(name, site, *weight) for site, weight in zip(sites, weights, strict=True))
            if isinstance(backend, BlockBackend):
                return backend.feed_forward(x, norm, fc1, fc2)
            return backend.linear_add(backend.linear_gelu(norm(x), fc1), fc2, x)

        return self._run(launch, run)

    def labels(self) -> tuple[str, ...]:
        """What reports call the backends in use."""
        return tuple(self._backend(name).label for name in dict.fromkeys(plan.backend for plan in self.plans.values()))

    def uses_device(self) -> bool:
        return any(self._backend(plan.backend).on_device for plan in self.plans.values())

    def fuses_attention(self, site: str) -> bool:
        return isinstance(self._backend(self.plans[site].backend), AttentionBackend)

    def fuses_feed_forward(self, site: str) -> bool:
        return isinstance(self._backend(self.plans[site].backend), BlockBackend)

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

    def _weighted(
        self, launch: str, weight: Tensor, bias: Tensor | None, product: Callable[[Backend, Any], Tensor]
    ) -> Tensor:
        """Run a product of prepared weights."""
        return self._run(
            launch, lambda name: product(self._backend(name), self._weights_for(name, launch, weight, bias))
        )

    def _weights_for(self, name: str, launch: str, weight: Tensor, bias: Tensor | None) -> Any:
        key = (name, launch)
        if key not in self._prepared:
            backend = self._backend(name)
            prepare = backend.prepare_conv if weight.dim() == 3 else backend.prepare
            self._prepared[key] = prepare(weight, bias)
        return self._prepared[key]

    def _run(self, launch: str, product: Callable[[str], Tensor]) -> Tensor:
        plans = self._launches[launch]
        ran = plans[0].backend
        started, before = time.perf_counter(), self._backend(ran).usage
        try:
            result = product(ran)
        except TROUBLE as e:
            ran = _fallback_after(e, launch, plans[0])
            for plan in plans:
                self._counts[plan.route.site.name].failures[str(e)] += 1
            before = self._backend(ran).usage
            result = product(ran)
        self._count(plans, self._backend(ran), before, time.perf_counter() - started)
        return result

    def _count(self, plans: Sequence[SitePlan], ran: Backend, before: Usage, seconds: float) -> None:
        work = [shape_of(plan.route.site).multiply_adds for plan in plans]
        for plan, part in zip(plans, work, strict=True):
            count, share = self._counts[plan.route.site.name], part / sum(work)
            count.calls[ran.label] += 1
            count.seconds += seconds * share
            count.device_calls += ran.usage.calls - before.calls
            count.device_seconds += (ran.usage.device_seconds - before.device_seconds) * share


def weights_of(products: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """The softmax between the two products of attention: q k^T (..., m, n), a bias (n,) for each key."""
    scores = products * scale
    return torch.softmax(scores if bias is None else scores + bias, dim=-1)


def _fallback_after(failure: Exception, launch: str, plan: SitePlan) -> str:
    """The backend that may take over from the one that failed. Raises RoutingError where the policy states none."""
    fallback = plan.route.fallback
    if fallback is None or fallback == plan.backend:
        raise RoutingError(
            f"{launch} failed on {plan.backend!r}: {failure}; the policy states no fallback"
        ) from failure
    return fallback


def shape_of(site: Site) -> ProductShape:
    return ProductShape(site.batch, site.m, site.k, site.n)


def router_of(key: str) -> Router:
    """The living router of that key: how a custom op, which takes strings, finds it."""
    return _routers[key]
