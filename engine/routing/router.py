"""The router: the backends of a policy, the weights prepared for them, and exact counts of what ran.

A *launch* is one call of a backend, for one site or for several that run as one block. The router moves activations:
a launch's inputs go to its backend if they are not there already, and its result stays there until a launch of another
backend, or the host, needs it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import RLock
from types import MappingProxyType
from typing import Any

from torch import Tensor

from tilewhisper.engine.errors import ModelClosed, RoutingError
from tilewhisper.engine.routing import custom_class
from tilewhisper.engine.routing.custom_class import CustomClassBase
from tilewhisper.engine.routing.plans import NO_FALLBACK, DecoderPlan, SitePlan, plan_decoder, plan_site, shape_of
from tilewhisper.engine.routing.policy import Route
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, BackendUnavailable, ProductFailed, Usage
from tilewhisper.kernels.device_tensor import DeviceTensor, noting_read_backs, to_host

__all__ = ["Counts", "DecoderPlan", "Launch", "Router", "SiteCount", "SitePlan", "plan_decoder", "shape_of"]

TROUBLE = (ProductFailed, BackendUnavailable)
"""Failures that a stated fallback handles: a device may prove unusable only on first use."""

_MISSING = object()
_NO_USE = Usage()

MoreKV = tuple[Tensor, Tensor] | None
"""Keys and values (batch, heads, n, head_dim) for attention besides the positions' own."""


@dataclass
class SiteCount:
    """Calls and times of one site."""

    calls: Counter[str] = field(default_factory=Counter)
    """Calls by the label of the backend that ran them."""
    seconds: float = 0.0
    """Wall time; a joint launch's time is split by multiply-adds."""
    device_calls: int = 0
    """Kernel calls on a device; those of a joint launch are counted at each of its sites."""
    planned_device_calls: int = 0
    """Those that the plan of the calls has: fewer if a call was repeated after a failure."""
    device_seconds: float = 0.0
    """The device's part of `seconds`."""
    failures: Counter[str] = field(default_factory=Counter)
    """Reasons for which a running call went to the fallback."""


class Counts(defaultdict[str, SiteCount]):
    """The counts of one run, by site name, and the times that results were copied from a device to the host."""

    def __init__(self) -> None:
        super().__init__(SiteCount)
        self.read_backs = 0

    def note_read_back(self, usage: Usage) -> None:
        """Count the read-back of an activation."""
        self.read_backs += usage.read_backs


_counting: ContextVar[Mapping[Router, Counts]] = ContextVar("counting", default=MappingProxyType({}))
"""Where each router counts, by thread and task: two threads that use one router never see each other's counts."""


Prepare = Callable[[Backend], Any]
"""Converts a launch's weights for a backend."""


def _no_weights(backend: Backend) -> None:
    pass


class Launch(CustomClassBase):  # type: ignore[misc,unused-ignore]  # Any where torch has the other name
    """One call of a backend: its sites and its weights. Custom operators take it as their last argument.

    It is a custom class to torch, which does not look into it, like the packed weights of `quantized::linear`. So there
    is no global table of routers, and a router lives only as long as its model.
    """

    def __init__(
        self,
        router: Router,
        name: str,
        plans: Sequence[SitePlan],
        weights: Sequence[Tensor] = (),
        prepare: Prepare = _no_weights,
    ) -> None:
        """`weights` are the weight tensors in the order of the products; `prepare` converts them for a backend."""
        self.router = router
        self.name = name
        self.plans = tuple(plans)
        self.weights = tuple(weights)
        self.prepare = prepare

    def prepared(self, backend: Backend) -> Any:
        """The weights as `backend` takes them; converted on first use."""
        return self.router.prepared(self, backend)

    def __repr__(self) -> str:
        return f"Launch({self.name!r})"


custom_class.register(Launch)


class Router:
    """Runs launches on the backends of a policy. Threads may share one; a device serves them one at a time."""

    def __init__(self, routes: Sequence[Route], create: Callable[[str], Backend] = registry.create) -> None:
        """Raises UnknownBackend, BackendUnavailable, or PolicyError when a site's request cannot be met."""
        self._create = create
        self._lock = RLock()
        self._closed = False
        self._backends: dict[str, Backend] = {}
        self._labels: dict[str, str] = {}
        self._prepared: dict[tuple[Backend, str], Any] = {}
        self.plans: dict[str, SitePlan] = {route.site.name: plan_site(route, self._backend) for route in routes}

    def launch(self, site: str, weights: Sequence[Tensor] = (), prepare: Prepare = _no_weights) -> Launch:
        """A launch of one site."""
        return Launch(self, site, [self.plans[site]], weights, prepare)

    def can_join(self, sites: Sequence[str], reason_against: Callable[[Backend], str | None]) -> bool:
        """Whether the sites start at one backend, with one fallback, that has no reason against running them as one."""
        plans = [self.plans[site] for site in sites]
        if len({(plan.backend, plan.route.fallback) for plan in plans}) > 1:
            return False
        return reason_against(self._backend(plans[0].backend)) is None

    def join(
        self,
        name: str,
        sites: Sequence[str],
        weights: Sequence[Tensor] = (),
        prepare: Prepare = _no_weights,
    ) -> Launch:
        """One launch for several sites, for which `can_join` must be true."""
        launch = Launch(self, name, [self.plans[site] for site in sites], weights, prepare)
        for plan in launch.plans:
            plan.launch = name
        return launch

    def prepare(self, launch: Launch) -> None:
        """Convert the launch's weights for its backend before the first call. Raises RoutingError."""
        try:
            self._prepare_on(launch.plans[0].backend, launch)
        except TROUBLE as e:
            fallback = _fallback_after(e, launch)
            for plan in launch.plans:
                plan.fallback_reason = str(e)
            self._prepare_on(fallback, launch)

    def prepared(self, launch: Launch, backend: Backend) -> Any:
        """A launch's weights as a backend takes them. The caller holds the backend's lock."""
        key = (backend, launch.name)
        found = self._prepared.get(key, _MISSING)
        if found is _MISSING:
            with self._lock:
                self._check_open()
                if (found := self._prepared.get(key, _MISSING)) is _MISSING:
                    found = self._prepared[key] = launch.prepare(backend)
        return found

    # Each of these runs one launch, where its route says, and raises RoutingError if that fails without a fallback.

    def linear(self, launch: Launch, x: Tensor) -> Tensor:
        """x (..., k) -> (..., n)."""
        return self._run(launch, lambda backend, weights, x: backend.linear(x, weights), x)

    def linear_gelu(self, launch: Launch, x: Tensor) -> Tensor:
        """`linear`, then GELU."""
        return self._run(launch, lambda backend, weights, x: backend.linear_gelu(x, weights), x)

    def linear_add(self, launch: Launch, x: Tensor, residual: Tensor) -> Tensor:
        """`linear` plus a residual (..., n)."""
        return self._run(launch, lambda backend, weights, x, y: backend.linear_add(x, weights, y), x, residual)

    def norm_linear(self, launch: Launch, x: Tensor) -> Tensor:
        """`linear` of x's layer norm."""
        return self._run(launch, lambda backend, weights, x: backend.norm_linear(x, *weights), x)

    def conv_gelu(self, launch: Launch, x: Tensor, stride: int) -> Tensor:
        """x (batch, positions, channels) -> GELU of its convolution (batch, positions / stride, n)."""
        taps = launch.weights[0].shape[-1]
        return self._run(launch, lambda backend, weights, x: backend.conv_gelu(x, weights, taps, stride), x)

    def matmul(self, launch: Launch, a: Tensor, b: Tensor) -> Tensor:
        """a (..., m, k) @ b (..., k, n)."""
        return self._run(launch, lambda backend, weights, a, b: backend.matmul(a, b), a, b)

    def attention(
        self, launch: Launch, qkv: Tensor, heads: int, scale: float, bias: Tensor | None, more: MoreKV
    ) -> Tensor:
        """Both attention products of qkv (batch, positions, 3 * d_model): (batch, positions, d_model)."""
        return self._run(launch, lambda backend, _, qkv: backend.qkv_attention(qkv, heads, scale, bias, more), qkv)

    def feed_forward(self, launch: Launch, x: Tensor) -> Tensor:
        """x (..., k) plus fc2(GELU(fc1(norm of x)))."""
        return self._run(launch, lambda backend, weights, x: backend.feed_forward(x, *weights), x)

    def encoder_layer(self, launch: Launch, x: Tensor, bias: Tensor | None, more: MoreKV) -> Tensor:
        """x (batch, positions, d_model) through a whole layer."""
        return self._run(launch, lambda backend, layer, x: backend.encoder_layer(x, layer, bias, more), x)

    def place(self, x: Tensor, launch: Launch) -> Tensor:
        """x on the backend of a launch, ahead of several launches that read it; the time is the launch's."""
        backend = self._backend(launch.plans[0].backend)
        if isinstance(x, DeviceTensor):
            return x
        started = time.perf_counter()
        try:
            with backend.lock:
                moved = backend.to_device(x)
        except TROUBLE:
            return x  # the launch will fail too, and go to its fallback
        if isinstance(moved, DeviceTensor):
            moved.on_host = x
        if (counts := _counting.get().get(self)) is not None:
            counts[launch.plans[0].route.site.name].seconds += time.perf_counter() - started
        return moved

    def is_on_device(self, launch: Launch) -> bool:
        """Whether the launch starts on a device."""
        return self._backend(launch.plans[0].backend).on_device

    def labels(self) -> tuple[str, ...]:
        """Names of the backends in use, for reports; available after `close` too."""
        return tuple(self._labels[name] for name in dict.fromkeys(plan.backend for plan in self.plans.values()))

    def uses_device(self) -> bool:
        return any(self._backend(plan.backend).on_device for plan in self.plans.values())

    @contextmanager
    def counting(self, counts: Counts) -> Iterator[None]:
        """Count in `counts`, by site name, the launches that this thread (or asyncio task) runs inside."""
        token = _counting.set({**_counting.get(), self: counts})
        try:
            with noting_read_backs(counts.note_read_back):
                yield
        finally:
            _counting.reset(token)

    def drop_weights(self) -> None:
        """Release prepared weights; backends stay open. For a router that runs nothing now."""
        self._prepared.clear()

    def close(self) -> None:
        """Release prepared weights and devices. Any later use raises ModelClosed."""
        # Outside this lock: a running launch holds its backend's lock and may need this one.
        with self._lock:
            self._closed = True
            backends = list(self._backends.values())
            self._backends.clear()
        for backend in backends:
            with backend.lock:
                self._prepared.clear()
                backend.close()

    def _prepare_on(self, name: str, launch: Launch) -> None:
        backend = self._backend(name)
        with backend.lock:
            launch.prepared(backend)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelClosed

    def _backend(self, name: str) -> Backend:
        found = self._backends.get(name)
        if found is None:
            with self._lock:
                self._check_open()
                if (found := self._backends.get(name)) is None:
                    found = self._backends[name] = self._create(name)
                    self._labels[name] = found.label
        return found

    def _run(self, launch: Launch, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Run `block(backend, prepared weights, *inputs)` on the launch's backend, else on its fallback."""
        counts = _counting.get().get(self)
        started = time.perf_counter()
        backend = self._backend(launch.plans[0].backend)
        try:
            result, usage = _run_on(backend, launch, block, inputs)
        except TROUBLE as e:
            backend = self._backend(_fallback_after(e, launch))
            if counts is not None:
                for plan in launch.plans:
                    counts[plan.route.site.name].failures[str(e)] += 1
            result, usage = _run_on(backend, launch, block, inputs)
        if counts is not None:
            _count(counts, launch.plans, backend.label, usage, time.perf_counter() - started)
        return result


def _run_on(
    backend: Backend, launch: Launch, block: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, Usage]:
    """The block's result and the device's use for it; inputs that are elsewhere are moved first."""
    # Read back from other devices before this one is locked: two threads must not wait for each other's.
    inputs = [to_host(x) if isinstance(x, DeviceTensor) and x.owner is not backend else x for x in inputs]
    with backend.lock:
        weights = launch.prepared(backend)
        if not backend.on_device:
            return block(backend, weights, *inputs), _NO_USE
        before = backend.usage
        moved = (x if isinstance(x, DeviceTensor) else backend.to_device(x) for x in inputs)
        return block(backend, weights, *moved), backend.usage - before


def _count(counts: Counts, plans: Sequence[SitePlan], label: str, usage: Usage, seconds: float) -> None:
    counts.read_backs += usage.read_backs
    work = [shape_of(plan.route.site).multiply_adds for plan in plans]
    for plan, part in zip(plans, work, strict=True):
        count, share = counts[plan.route.site.name], part / sum(work)
        count.calls[label] += 1
        count.seconds += seconds * share
        count.device_calls += usage.calls
        count.planned_device_calls += usage.planned_calls
        count.device_seconds += usage.device_seconds * share


def _fallback_after(failure: Exception, launch: Launch) -> str:
    """The backend that takes over from the failed one. Raises RoutingError if the policy states none."""
    plan = launch.plans[0]
    fallback = plan.route.fallback
    if fallback is None or fallback == plan.backend:
        raise RoutingError(f"{launch.name} failed on {plan.backend!r}: {failure}; {NO_FALLBACK}") from failure
    return fallback
