"""`tilewhisper build`: compile the native kernels now instead of at first use, and load them as a check."""

import time
from argparse import Namespace

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build, compiler


def run(args: Namespace) -> int:
    """Raises BackendUnavailable if there is no compiler, the compiler fails, or the library does not load."""
    started = time.monotonic()
    if args.force and (packaged := build.NATIVE.wheels_library()):
        raise BackendUnavailable(f"the wheel brought the library that is used, {packaged}: there is nothing to compile")
    found = None if args.force else build.find()
    library = build.library(force=args.force)
    seconds = time.monotonic() - started
    sets = build.instruction_sets()
    screen = console()
    origin = "already built" if found else f"compiled in {seconds:.1f} s"
    say(screen, f"library           {library}, {'from the wheel' if library.parent == build.PACKAGED else origin}")
    if not found:
        say(screen, f"compiler          {compiler.find_compiler()}")
    say(screen, f"instruction sets  {', '.join(sets)} (the first is used)")
    return 0
