"""Standard output and standard error as rich consoles, and how a line of text is put on them."""

import io
import sys

from rich.console import Console
from rich.text import Text

# rich takes 80 columns where there is no terminal, and breaks table cells to fit; a file or pipe has no such limit.
_PIPE_WIDTH = 240


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # by itself rich ends the process with status 1; what a closed pipe means, `cli` says


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # what its encoding lacks comes as ?: no text is lost for one letter
    screen = _Console(stderr=stderr, highlight=False, markup=False)
    if not screen.is_terminal:
        screen.width = _PIPE_WIDTH
    return screen


def say(screen: Console, line: str, style: str = "") -> None:
    """One line as it is: nothing in it is markup, and it is the terminal's to wrap."""
    screen.print(Text(line, style), soft_wrap=True)
