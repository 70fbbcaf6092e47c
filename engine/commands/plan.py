"""`tilewhisper plan`: how an NPU would cut a model's encoder or one product, and the predicted cost. No NPU is used."""

import json
from argparse import Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilewhisper.engine.commands import plan_published, plan_sizes, plan_tables
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.tuning import planning
from tilewhisper.kernels.xdna import seed
from tilewhisper.kernels.xdna.array import Geometry
from tilewhisper.kernels.xdna.cost import ArrayProfile, Profile
from tilewhisper.kernels.xdna.geometries import WHOLE_ARRAY, find_geometry
from tilewhisper.kernels.xdna.profiles import ARRAY_PROFILES, find_profile
from tilewhisper.models.checkpoint.default import default_name

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.encode_times import EncodeTimes

DEFAULT_DEVICE = "xdna1"


def run(args: Namespace) -> int:
    if args.sizes or args.published:
        return _run_overview(args)
    profile = find_profile(args.device or DEFAULT_DEVICE)
    geometry = find_geometry(args.geometry or WHOLE_ARRAY, profile.device)
    check_writable(args.json)
    if args.stream is not None and args.shape is None:
        raise OptionError("--stream shows the stream of one product: add --shape M,K,N")
    compared = geometry in seed.SEED_GEOMETRIES or profile in seed.SEED_PROFILES
    if args.shape is None:
        model = args.model or default_name()
        encoder = planning.plan_encoder(model, planning.sites_of_model(model), geometry, profile)
        encode = None if compared else _encode_times(encoder, profile, args.threads)
        result = encoder.to_json() | ({"encode": encode.to_json()} if encode else {})
        show = partial(_show_encoder, encoder, encode)
    else:
        product = planning.plan_product(planning.parse_shape(args.shape), geometry, profile)
        result = product.to_json()
        show = partial(_show_product, product) if args.stream is None else partial(_show_stream, product, args.stream)
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


def _run_overview(args: Namespace) -> int:
    """`--sizes` or `--published`, for one profile or for all."""
    flag = "--sizes" if args.sizes else "--published"
    for name in ("geometry", "stream"):
        if getattr(args, name) is not None:
            raise OptionError(f"--{name} is for one model or product, not for {flag}; leave one of them out")
    profiles = _array_profiles(args.device, flag)
    check_writable(args.json)
    screen = console()
    if args.published:
        result, show = plan_published.to_json(profiles), partial(plan_published.show, screen, profiles)
    else:
        from tilewhisper.engine.tuning import encode_times  # imported late because it imports torch

        sizes = encode_times.of_all_sizes(profiles, args.threads)
        result, show = encode_times.sizes_to_json(sizes), partial(plan_sizes.show, screen, sizes)
    try:
        show()
    finally:
        if args.json:
            write(Path(args.json), json.dumps(result, indent=1) + "\n")
    return 0


def _array_profiles(name: str | None, flag: str) -> tuple[ArrayProfile, ...]:
    """The profile with this name, or all. Raises UnknownTarget and OptionError."""
    if name is None:
        return ARRAY_PROFILES
    profile = find_profile(name)
    if isinstance(profile, ArrayProfile):
        return (profile,)
    names = ", ".join(p.name for p in ARRAY_PROFILES)
    raise OptionError(f"{flag} is for whole arrays, not for profile {profile.name}; the profiles are {names}")


def _encode_times(encoder: planning.EncoderPlan, profile: Profile, threads: int) -> "EncodeTimes | None":
    from tilewhisper.engine.tuning import encode_times  # imported late because it imports torch

    return encode_times.of_model(encoder, profile, threads) if isinstance(profile, ArrayProfile) else None


def _show_encoder(
    encoder: planning.EncoderPlan,
    encode: "EncodeTimes | None",
    screen: Console,
    geometry: Geometry,
    profile: Profile,
) -> None:
    say(screen, f"encoder of {encoder.model}; {plan_tables.plan_setting_line(geometry, profile)}")
    screen.print()
    screen.print(plan_tables.planned_sites_table(encoder))
    screen.print()
    screen.print(plan_tables.scope_table(encoder, profile.device.max_contexts))
    screen.print()
    if encode:
        plan_sizes.show_encode(screen, encode)
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
    say(screen, "Every time of an NPU above is a prediction from these figures; this project measured none of them.")


def _setting(geometry: Geometry, profile: Profile) -> dict[str, Any]:
    return {
        "geometry": asdict(geometry),
        "device": profile.name,
        "figures": [asdict(figure) for figure in profile.figures],
        "prediction": True,
    }
