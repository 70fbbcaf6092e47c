"""The command line's entry point: arguments in, exit status out. Each command is a module of `engine.commands`.

Exit status: 0 all done, 2 the request cannot be met, 3 some of several files failed or
a file is damaged and was transcribed in part, 130 interrupted.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from tilewhisper.engine import startup
from tilewhisper.engine.commands.parser import parser
from tilewhisper.engine.errors import USER_ERRORS

_FLAG = re.compile(r"(?<=^--)[^=]*")


def program() -> NoReturn:
    """Run `main` as a process of its own."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; `arguments` are the process's own by default. Returns the exit status."""
    args = parser().parse_args(_underscored(sys.argv[1:] if arguments is None else arguments))
    try:
        with startup.fast_imports():
            return _run(args)
    except USER_ERRORS as e:
        print(f"tilewhisper: error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tilewhisper: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`), which is no error. Without a stdout the interpreter does not
        # report it at exit either.
        sys.stdout = None
        return 0


def _run(args: argparse.Namespace) -> int:
    # A command is imported only when it runs: torch and transformers take seconds.
    command = import_module(f"tilewhisper.engine.commands.{args.command}")
    status: int = command.run(args)
    return status


def _underscored(words: Sequence[str]) -> list[str]:
    """--dash-case as --snake_case, the parser's own spelling of flags; words after a lone -- are no flags."""
    flags = words.index("--") if "--" in words else len(words)
    return [_FLAG.sub(lambda flag: flag[0].replace("-", "_"), word) for word in words[:flags]] + list(words[flags:])


if __name__ == "__main__":
    program()
