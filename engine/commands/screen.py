"""Standard output and standard error as rich consoles."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


class _Warnings(logging.Handler):
    def __init__(self, screen: Console) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        say(self._screen, f"tilewhisper: {record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def showing_warnings(screen: Console) -> Iterator[None]:
    """Print the warnings that the library logs."""
    log, handler = logging.getLogger("tilewhisper"), _Warnings(screen)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def say(screen: Console, line: str, style: str = "") -> None:
    """Print a line without markup or wrapping; the terminal wraps it."""
    screen.print(Text(line, style), soft_wrap=True)
