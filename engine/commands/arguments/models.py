"""The arguments of the commands on models: convert, cache."""

import argparse

from tilewhisper.engine.commands.hints import HintingParser
from tilewhisper.models.checkpoint.export import FORMATS


def add_convert(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "convert",
        help="write a model in the format of another engine",
        usage="tilewhisper convert MODEL --to FORMAT DIR [--precision PRECISION]",
        epilog="Exit status: 0 written, 2 the request cannot be met, 130 interrupted.",
    )
    p.add_argument("model", metavar="MODEL", help="an official size, a hub name, a folder or a weights file")
    p.add_argument("folder", metavar="DIR", help="new or empty folder; its files appear when all are complete")
    p.add_argument("--to", required=True, choices=FORMATS, help="format: " + _engines())
    p.add_argument(
        "--precision", metavar="PRECISION", help=f"of the weights; the first is the default: {_precisions()}"
    )


def _engines() -> str:
    return "; ".join(f"{name} for {form.engines}" for name, form in FORMATS.items())


def _precisions() -> str:
    return "; ".join(f"{name} {', '.join(form.precisions)}" for name, form in FORMATS.items())


def add_cache(commands: "argparse._SubParsersAction[HintingParser]") -> None:
    p = commands.add_parser(
        "cache",
        help="list or clear what earlier starts have cached of models",
        description="A model's first start packs its weights for the backends of its policy, and later starts map them "
        "from the cache. The checkpoints themselves are not part of it.",
    )
    p.add_argument("models", nargs="*", metavar="MODEL", help="only these models, by their listed names (default: all)")
    p.add_argument("--clear", action="store_true", help="delete what is listed")
