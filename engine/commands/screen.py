"""Standard output and standard error as rich consoles."""

import io
import sys

from rich.console import Console
from rich.text import Text

# Without a terminal rich assumes 80 columns and wraps table cells to fit; a file or pipe has no such limit.
_PIPE_WIDTH = 240


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with status 1; `main` handles a closed pipe


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(
            errors="replace"
        )  # characters that the encoding lacks become ?, instead of an error that loses the text
    screen = _Console(stderr=stderr, highlight=False, markup=False)
    if not screen.is_terminal:
        screen.width = _PIPE_WIDTH
    return screen


def say(screen: Console, line: str, style: str = "") -> None:
    """Print a line without markup or wrapping; the terminal wraps it."""
    screen.print(Text(line, style), soft_wrap=True)
