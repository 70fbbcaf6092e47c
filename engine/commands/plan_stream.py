"""`tilewhisper plan --stream`: the instruction stream of one product, planned or built, as text."""

from pathlib import Path

from rich.console import Console

from tilewhisper.engine.commands.screen import say
from tilewhisper.kernels.xdna.built_designs import check_file
from tilewhisper.kernels.xdna.instructions.listing import listing
from tilewhisper.kernels.xdna.instructions.lowering import stream_of
from tilewhisper.kernels.xdna.instructions.words import decode
from tilewhisper.kernels.xdna.tile_plan import TilePlan


def show_stream(screen: Console, plan: TilePlan, file: str) -> None:
    """Print the plan's stream, or the built one in `file`. Raises KernelError if that is not the plan's, or OSError."""
    if file:
        check_file(Path(file), plan)
    stream = decode(Path(file).read_bytes()) if file else stream_of(plan)
    for line in listing(stream):
        say(screen, line)
