"""`tilewhisper cache`: list or clear what earlier starts have cached of models."""

import json
from argparse import Namespace
from datetime import datetime
from pathlib import Path

from rich.table import Table

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.models.checkpoint.cache_folder import CACHE, last_used, size_of

_MB = 10**6


def run(args: Namespace) -> int:
    """Raises OptionError for a model of which nothing is cached."""
    named = [(_name(folder), folder) for folder in CACHE.folders()]
    names = {name for name, _ in named}
    if missing := [model for model in args.models if model not in names]:
        found = f"it has {', '.join(sorted(names))}" if names else "it is empty"
        raise OptionError(f"nothing is cached of {missing[0]!r} in {CACHE.path}: {found}")
    chosen = [(name, folder) for name, folder in named if not args.models or name in args.models]
    screen = console()
    if chosen:
        screen.print(_table(chosen))
    total = sum(size_of(folder) for _, folder in chosen)
    if args.clear:
        freed = CACHE.clear([folder for _, folder in chosen])
        say(screen, f"deleted {freed / _MB:.0f} MB in {CACHE.path}")
    else:
        say(screen, f"{total / _MB:.0f} MB in {CACHE.path}")
    return 0


def _table(chosen: list[tuple[str, Path]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("model", "packed for", "MB", "last used"):
        table.add_column(title, justify="right" if title == "MB" else "left")
    for name, folder in chosen:
        used = datetime.fromtimestamp(last_used(folder)).isoformat(" ", "minutes")
        table.add_row(name, ", ".join(_backends(folder)), f"{size_of(folder) / _MB:.1f}", used)
    return table


def _name(folder: Path) -> str:
    """The name that the model was loaded by, or the folder's own where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
            return str(json.loads(file.metadata()["about"])["name"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return folder.name


def _backends(folder: Path) -> list[str]:
    """The backends for which weights are packed."""
    from safetensors import SafetensorError, safe_open

    found = set()
    for path in folder.glob("packed-*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                found |= {name.partition("-")[0] for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):
            found.add("damaged")
    return sorted(found)
