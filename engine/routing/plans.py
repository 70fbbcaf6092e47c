"""A policy's routes checked against the backends: where each site, and the decoder, starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewhisper.engine.errors import PolicyError
from tilewhisper.engine.routing.policy import DecoderRoute, Route
from tilewhisper.engine.routing.sites import Site
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, BackendUnavailable, ProductShape
from tilewhisper.kernels.decoder import DecoderBackend

NO_FALLBACK = 'the policy has no fallback for it; choose another policy, or add one, such as fallback = "torch"'


@dataclass
class SitePlan:
    """One site's requested route and the backend it starts at."""

    route: Route
    launch: str
    """The launch this site is part of; sites of one launch run together."""
    fallback_reason: str | None = None
    """Why the requested backend was never used, if the stated fallback replaced it from the start."""

    @property
    def backend(self) -> str:
        """The backend calls start at."""
        return self.route.fallback if self.fallback_reason and self.route.fallback else self.route.backend


@dataclass(frozen=True)
class DecoderPlan:
    """The decoder's requested route and the backend it runs on."""

    route: DecoderRoute
    backend: DecoderBackend
    fallback_reason: str | None = None
    """Why the requested backend is not used, if the stated fallback replaced it."""


def plan_site(route: Route, backend: Callable[[str], Backend]) -> SitePlan:
    """Where a site starts. `backend` makes or finds a backend by name. Raises UnknownBackend, or PolicyError if neither
    the requested backend nor a stated fallback can take the site."""
    site = route.site.name
    reason = _reason_against(route.backend, route.site, backend)
    if reason:
        if route.fallback is None:
            raise PolicyError(f"{site} ({route.rule}): {reason}; {NO_FALLBACK}")
        if second := _reason_against(route.fallback, route.site, backend):
            raise PolicyError(f"{site} ({route.rule}): {reason}; its fallback cannot run either: {second}")
    return SitePlan(route, launch=site, fallback_reason=reason)


def _reason_against(name: str, site: Site, backend: Callable[[str], Backend]) -> str | None:
    try:
        reason = backend(name).supports(shape_of(site))
    except BackendUnavailable as e:
        return str(e)
    return f"backend {name!r} cannot take it: {reason}" if reason else None


def plan_decoder(route: DecoderRoute, create: Callable[[str], Backend] = registry.create) -> DecoderPlan:
    """The decoder's backend. Raises UnknownBackend, or PolicyError when the request cannot be met."""
    backend, reason = _decoder_backend(route.backend, create)
    if backend:
        return DecoderPlan(route, backend)
    if route.fallback is None:
        raise PolicyError(f"decoder: {reason}; {NO_FALLBACK}")
    backend, second = _decoder_backend(route.fallback, create)
    if not backend:
        raise PolicyError(f"decoder: {reason}; its fallback cannot run either: {second}")
    return DecoderPlan(route, backend, reason)


def _decoder_backend(name: str, create: Callable[[str], Backend]) -> tuple[DecoderBackend | None, str]:
    """The backend, or the reason it cannot run a decoder here."""
    if not issubclass(registry.backend_class(name), DecoderBackend):
        able = ", ".join(cls.name for cls in registry.all_classes() if issubclass(cls, DecoderBackend))
        return None, f"backend {name!r} cannot run a decoder; those that can are {able}"
    try:
        backend = create(name)
    except BackendUnavailable as e:
        return None, str(e)
    assert isinstance(backend, DecoderBackend)
    return backend, ""


def shape_of(site: Site) -> ProductShape:
    return ProductShape(site.batch, site.m, site.k, site.n)
