"""`tilewhisper layers`: every routable product of a model's encoder, its size, and where a policy sends it."""

from argparse import Namespace

from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.routing.policy import Route, load_policy
from tilewhisper.engine.tuning.planning import sites_of_model
from tilewhisper.kernels.base import Backend, BackendUnavailable, Settings


def run(args: Namespace) -> int:
    policy = load_policy(args.policy).with_overrides(args.backend)
    routes = policy.resolve(sites_of_model(args.model))

    from tilewhisper.engine.commands import tables

    chosen = settings(args)
    backends = {name: _backend(name, chosen) for name in dict.fromkeys(route.backend for route in routes)}
    console().print(tables.route_table((route, _where(route, backends[route.backend])) for route in routes))
    return 0


def _backend(name: str, chosen: Settings) -> Backend | str:
    """The backend, or why there is none. Raises UnknownBackend."""
    from tilewhisper.kernels import registry

    try:
        return registry.create(name, chosen)
    except BackendUnavailable as e:
        return str(e)


def _where(route: Route, backend: Backend | str) -> str:
    """What reports would call the backend, and why it cannot take the site, if it cannot."""
    from tilewhisper.engine.routing.router import shape_of

    if isinstance(backend, str):
        return f"{route.backend}: {backend}"
    refusal = backend.supports(shape_of(route.site))
    return f"{backend.label}: {refusal}" if refusal else backend.label
