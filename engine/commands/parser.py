"""The argument parser: every command, its flags and their help. Imports neither torch nor numpy."""

import argparse
from collections.abc import Sequence

from tilewhisper import __version__
from tilewhisper.engine.commands.arguments import batch, listen, machine, measurements, models, serve, transcribe
from tilewhisper.engine.commands.hints import HintingParser, missing_command

ABOUT = "Transcribe speech with Whisper, each encoder product on the backend of your choice."
COMMANDS = (
    transcribe.add,
    batch.add,
    measurements.add_layers,
    measurements.add_bench,
    measurements.add_profile,
    measurements.add_tune,
    measurements.add_plan,
    models.add_convert,
    machine.add_build,
    listen.add,
    serve.add,
    models.add_cache,
    machine.add_doctor,
    machine.add_npu_check,
)
"""What adds each command's parser, in the order of `--help`."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """A command and its flags. Exits with status 2 and a message for words that are none."""
    root = HintingParser(prog="tilewhisper", description=ABOUT)
    root.add_argument(
        "--version", action="version", version=f"tilewhisper {__version__}", help="show the version and exit"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    if problem := missing_command(words, commands.choices):
        root.error(problem)
    return root.parse_args(words)
