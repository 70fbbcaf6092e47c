"""The argument parser: every command, its flags and their help. Imports neither torch nor numpy."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from tilewhisper import __version__
from tilewhisper.engine.commands.hints import HintingParser, missing_command

ABOUT = "Transcribe speech with Whisper, each encoder product on the backend of your choice."
COMMANDS = {
    "transcribe": ("transcribe", "add"),
    "batch": ("batch", "add"),
    "layers": ("measurements", "add_layers"),
    "bench": ("measurements", "add_bench"),
    "profile": ("measurements", "add_profile"),
    "tune": ("measurements", "add_tune"),
    "plan": ("measurements", "add_plan"),
    "convert": ("models", "add_convert"),
    "build": ("machine", "add_build"),
    "listen": ("listen", "add"),
    "serve": ("serve", "add"),
    "cache": ("models", "add_cache"),
    "doctor": ("machine", "add_doctor"),
    "npu-check": ("machine", "add_npu_check"),
}
"""The module of `arguments` and its function that adds a command's parser, in the order of `--help`."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """A command and its flags. Exits with status 2 and a message for words that are none."""
    root = HintingParser(prog="tilewhisper", description=ABOUT)
    root.add_argument(
        "--version", action="version", version=f"tilewhisper {__version__}", help="show the version and exit"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # The parsers of all commands, which only the general help needs, take 0.06 of 0.25 s.
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module, add = COMMANDS[name]
        getattr(import_module(f"tilewhisper.engine.commands.arguments.{module}"), add)(commands)
    if problem := missing_command(words, COMMANDS):
        root.error(problem)
    return root.parse_args(words)
