"""`tilewhisper layers`: list every routable product of a model's encoder, its size and its backend under a policy."""

from argparse import Namespace

from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.routing.policy import Route, load_policy
from tilewhisper.engine.tuning.planning import sites_of_model
from tilewhisper.kernels.base import Backend, BackendUnavailable, Settings
from tilewhisper.models.checkpoint.default import default_name


def run(args: Namespace) -> int:
    policy = load_policy(args.policy).with_overrides(args.backend)
    routes = policy.resolve(sites_of_model(args.model or default_name()))

    from tilewhisper.engine.commands import tables

    chosen = settings(args)
    backends = {name: _backend(name, chosen) for name in dict.fromkeys(route.backend for route in routes)}
    console().print(tables.route_table((route, _label(route, backends[route.backend])) for route in routes))
    return 0


def _backend(name: str, chosen: Settings) -> Backend | str:
    """The backend, or the reason why it is unavailable. Raises UnknownBackend."""
    from tilewhisper.kernels import registry

    try:
        return registry.create(name, chosen)
    except BackendUnavailable as e:
        return str(e)


def _label(route: Route, backend: Backend | str) -> str:
    """The backend's label in reports, with the reason if it does not support the site."""
    from tilewhisper.engine.routing.router import shape_of

    if isinstance(backend, str):
        return f"{route.backend}: {backend}"
    refusal = backend.supports(shape_of(route.site))
    return f"{backend.label}: {refusal}" if refusal else backend.label
