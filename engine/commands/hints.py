"""What to type instead of arguments that cannot be understood: a full command to copy."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from tilewhisper.engine.commands import screen
from tilewhisper.engine.commands.inputs import STDIN
from tilewhisper.models.audio.folders import EXTENSIONS


class HintingParser(argparse.ArgumentParser):
    """A parser whose errors name the files that look like flags."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def print_help(self, file: Any = None) -> None:
        screen.write(self.format_help())  # argparse's own ignores errors, and fails on an encoding without “

    def error(self, message: str) -> NoReturn:
        file = next((word for word in self._words if _is_file_like_a_flag(word)), None)
        super().error(f"{message}; to give the file {file}, write {_as_file(file)}" if file else message)


def missing_command(words: Sequence[str], commands: Collection[str]) -> str | None:
    """The error of arguments that do not start with a command, or None."""
    if not words or words[0] in commands or words[0] in ("-h", "--help", "--version"):
        return None
    first, command = words[0], shlex.join(["tilewhisper", "transcribe", *map(_as_file, words)])
    if _is_input(first) or (first.startswith("-") and any(map(_is_input, words))):
        return f"{first!r} is not a command; to transcribe: {command}"
    near = difflib.get_close_matches(first, commands, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(commands)}"
    return f"{first!r} is not a command; {hint}"


def _is_input(word: str) -> bool:
    return word == STDIN or "://" in word or word.lower().endswith(EXTENSIONS) or os.path.exists(word)  # noqa: PTH110


def _is_file_like_a_flag(word: str) -> bool:
    return word.startswith("-") and word != STDIN and os.path.exists(word)  # noqa: PTH110 (Path fails for long names)


def _as_file(word: str) -> str:
    return f"./{word}" if _is_file_like_a_flag(word) else word
