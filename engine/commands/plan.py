"""`tilewhisper plan`: how an NPU would cut a model's encoder or one product, and the predicted cost. Runs nothing."""

import json
from argparse import Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tilewhisper.engine.commands import plan_tables
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.tuning import planning
from tilewhisper.kernels.xdna import seed
from tilewhisper.kernels.xdna.array import Geometry
from tilewhisper.kernels.xdna.cost import Profile
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.profiles import find_profile
from tilewhisper.models.checkpoint.default import default_name


def run(args: Namespace) -> int:
    profile = find_profile(args.device)
    geometry = find_geometry(args.geometry, profile.device)
    check_writable(args.json)
    if args.stream is not None and args.shape is None:
        raise OptionError("--stream shows the stream of one product: add --shape M,K,N")
    if args.shape is None:
        model = args.model or default_name()
        encoder = planning.plan_encoder(model, planning.sites_of_model(model), geometry, profile)
        result, show = encoder.to_json(), partial(_show_encoder, encoder)
    else:
        product = planning.plan_product(planning.parse_shape(args.shape), geometry, profile)
        result = product.to_json()
        show = partial(_show_product, product) if args.stream is None else partial(_show_stream, product, args.stream)
    compared = geometry in seed.SEED_GEOMETRIES or profile in seed.SEED_PROFILES
    if compared:
        result["seed"] = [row.to_json() for row in planning.seed_rows()]
    screen = console()
    try:
        show(screen, geometry, profile)
        if args.stream is None:
            if compared:
                _seed(screen)
            _sources(screen, profile)
    finally:  # written even if standard output is lost
        if args.json:
            write(Path(args.json), json.dumps(result | _setting(geometry, profile), indent=1) + "\n")
    return 0


def _show_encoder(encoder: planning.EncoderPlan, screen: Console, geometry: Geometry, profile: Profile) -> None:
    say(screen, f"encoder of {encoder.model}; {plan_tables.plan_setting_line(geometry, profile)}")
    screen.print()
    screen.print(plan_tables.planned_sites_table(encoder))
    screen.print()
    screen.print(plan_tables.scope_table(encoder, profile.device.max_contexts))
    screen.print()
    for line in plan_tables.encoder_limits(encoder):
        say(screen, line)


def _show_product(planned: planning.PlannedProduct, screen: Console, geometry: Geometry, profile: Profile) -> None:
    say(screen, plan_tables.plan_setting_line(geometry, profile))
    screen.print()
    screen.print(plan_tables.planned_product_table(planned))
    screen.print()
    for line in plan_tables.NPU_LIMITS:
        say(screen, line)


def _show_stream(product: planning.PlannedProduct, file: str, screen: Console, *_: Geometry | Profile) -> None:
    from tilewhisper.engine.commands.plan_stream import show_stream  # imported late because it imports numpy

    show_stream(screen, product.plan, file)


def _seed(screen: Console) -> None:
    screen.print()
    for line in seed.EXPLANATION:
        say(screen, line)
    rows = planning.seed_rows()
    screen.print()
    screen.print(plan_tables.seed_table(rows))
    for line in plan_tables.seed_lines(rows):
        say(screen, line)


def _sources(screen: Console, profile: Profile) -> None:
    screen.print()
    screen.print(plan_tables.figure_table(profile.figures))
    say(screen, "Every time above is a prediction from these figures; this project measured none of them.")


def _setting(geometry: Geometry, profile: Profile) -> dict[str, Any]:
    return {
        "geometry": asdict(geometry),
        "device": profile.name,
        "figures": [asdict(figure) for figure in profile.figures],
        "prediction": True,
    }
