"""`tilewhisper layers`: every routable product of a model's encoder, its size, and where a policy sends it."""

from argparse import Namespace
from collections.abc import Sequence

from tilewhisper.engine import policy as policies
from tilewhisper.engine.commands.screen import console
from tilewhisper.models.catalog import Site, encoder_sites, official


def run(args: Namespace) -> int:
    policy = policies.load(args.policy).with_overrides(args.backend)
    routes = policy.resolve(_sites(args.model))

    from tilewhisper.engine import tables
    from tilewhisper.engine.router import shape_of
    from tilewhisper.kernels import registry

    refusals = ((route, registry.why_not(route.backend, shape_of(route.site))) for route in routes)
    console().print(tables.route_table(refusals))
    return 0


def _sites(model: str) -> Sequence[Site]:
    """An official size needs no weights: its sites follow from its dimensions."""
    if size := official(model):
        return encoder_sites(size.encoder_layers, size.d_model, size.heads, 4 * size.d_model)
    from tilewhisper.models import checkpoint
    from tilewhisper.models.catalog import sites_of

    return sites_of(checkpoint.load(model).model.config)
