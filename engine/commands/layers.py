"""`tilewhisper layers`: every routable product of a model's encoder, its size, and where a policy sends it."""

from argparse import Namespace

from tilewhisper.engine import policy as policies
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.planning import sites_of_model


def run(args: Namespace) -> int:
    policy = policies.load(args.policy).with_overrides(args.backend)
    routes = policy.resolve(sites_of_model(args.model))

    from tilewhisper.engine import tables
    from tilewhisper.engine.router import shape_of
    from tilewhisper.kernels import registry

    chosen = settings(args)
    refusals = ((route, registry.why_not(route.backend, shape_of(route.site), chosen)) for route in routes)
    console().print(tables.route_table(refusals))
    return 0
