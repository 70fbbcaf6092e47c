"""The command line's entry point: arguments in, exit status out. Each command is a module of `engine.commands`.

Exit status: 0 all done, 2 the request cannot be met, 3 some of several files failed or
a file is damaged and was transcribed in part, 130 interrupted.
"""

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tilewhisper.engine import startup
from tilewhisper.engine.commands import screen, unused_modules
from tilewhisper.engine.commands.parser import parse
from tilewhisper.engine.errors import USER_ERRORS, OptionError

_FLAG = re.compile(r"(?<=^--)[^=]*")


def program() -> NoReturn:
    """Run `main` as a process of its own."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; `arguments` are the process's own by default. Returns the exit status."""
    try:
        with screen.flushed():
            return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        screen.say(screen.console(stderr=True), "tilewhisper: interrupted")
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has gone (`| head`), which is no error
    except (*USER_ERRORS, OSError) as e:
        screen.complain(screen.console(stderr=True), _described(e))
        return 2


def _run(words: Sequence[str]) -> int:
    args = parse(_underscored(words))
    _check_working_folder()
    unused_modules.leave_out()
    with startup.fast_imports():
        # A command is imported only when it runs: torch and transformers take seconds.
        command = import_module(f"tilewhisper.engine.commands.{args.command.replace('-', '_')}")
        status: int = command.run(args)
        return status


def _check_working_folder() -> None:
    """Raise OptionError where names cannot be resolved."""
    try:
        Path.cwd()
    except OSError as e:
        raise OptionError(f"the working folder no longer exists or cannot be read ({e.strerror}); cd to another") from e


def _described(error: Exception) -> str:
    """The text of an error, which for one of the operating system names the file."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _underscored(words: Sequence[str]) -> list[str]:
    """--dash-case as --snake_case, the parser's own spelling of flags; words after a lone -- are no flags."""
    flags = words.index("--") if "--" in words else len(words)
    return [_FLAG.sub(lambda flag: flag[0].replace("-", "_"), word) for word in words[:flags]] + list(words[flags:])


if __name__ == "__main__":
    program()
