"""Standard output and standard error as rich consoles, whatever is behind them: a terminal, a full disk, nothing."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table  # whoever has one to show has imported it

# Without a terminal rich assumes 80 columns and wraps table cells to fit; a file or pipe has no such limit. A terminal
# of width 0 does not know its width; rich would show nothing on it.
_PIPE_WIDTH = 240
_COPY_WIDTH = 10_000
"""Wraps nothing."""
_CONTROLS = {code: rf"\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
"""Characters that a file name may hold and that a terminal would obey."""


class OutputLost(OSError):  # noqa: N818 (names the condition)
    """Standard output cannot be written. It is no error of a single input: the command decides whether to go on."""


class _Stream:
    """A standard stream for a console. After a failed write it is silent; only standard output reports the failure."""

    def __init__(self, stream: TextIO | None, *, reports: bool) -> None:
        self._stream = stream
        self._reports = reports
        self._failed = False
        # Characters that the encoding lacks become ?, instead of an error that loses the text.
        if isinstance(stream, io.TextIOWrapper):
            self._try(lambda _: stream.reconfigure(errors="replace"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, act: Callable[[TextIO], object]) -> None:
        if self._failed:
            return
        try:
            if self._stream is None:
                raise OSError("it is closed")
            act(self._stream)
        except (OSError, ValueError) as e:  # ValueError: closed by Python
            self._failed = True
            _abandon(self._stream)
            if isinstance(e, BrokenPipeError) and self._reports:
                raise
            if self._reports:
                reason = getattr(e, "strerror", None) or e
                raise OutputLost(f"cannot write to standard output: {reason}") from e


def console(*, stderr: bool = False) -> Console:
    stream = _Stream(sys.stderr if stderr else sys.stdout, reports=not stderr)
    screen = _Console(file=cast(TextIO, stream), highlight=False, markup=False, emoji=False)
    if not screen.is_terminal or screen.width < 1:
        screen.width = _PIPE_WIDTH
    return screen


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with status 1; `main` handles a closed pipe


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
    screen.print(plain(line, style), soft_wrap=True)


def write(text: str) -> None:
    """Write to standard output as it is."""
    _Stream(sys.stdout, reports=True).write(text)


def complain(screen: Console, message: str) -> None:
    """Print an error on one line, also where a file's name has several."""
    say(screen, "tilewhisper: error: " + message.replace("\n", r"\n"))


def plain(text: str, style: str = "") -> Text:
    """Text that is shown as it is: without markup, emoji codes or control characters."""
    return Text(text.translate(_CONTROLS), style)


class Transcript:
    """Standard output and errors, and a copy of their text for a report."""

    def __init__(self) -> None:
        self._copy = Console(file=io.StringIO(), width=_COPY_WIDTH, markup=False, emoji=False, highlight=False)
        self._out, self._errors = console(), console(stderr=True)

    @property
    def text(self) -> str:
        return cast(io.StringIO, self._copy.file).getvalue()

    def say(self, line: str) -> None:
        for screen in (self._copy, self._out):
            say(screen, line)

    def complain(self, message: str) -> None:
        for screen in (self._copy, self._errors):
            complain(screen, message)

    def show(self, table: "Table") -> None:
        for screen in (self._copy, self._out):
            screen.print(table)


@contextmanager
def flushed() -> Iterator[None]:
    """Write all output before the end, so that a failure is an error like any other. Raises OutputLost.

    Streams that were closed at the start are opened on the null device first: otherwise the next file that is opened
    gets the number of standard error, and every warning is written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for the process's lifetime)
    try:
        yield
    finally:
        _Stream(sys.stderr, reports=False).flush()
        if sys.stdout is not None:
            _Stream(sys.stdout, reports=True).flush()


def _abandon(stream: TextIO | None) -> None:
    """Replace a failed stream: at exit, the interpreter would try again to write what it holds, and fail."""
    if stream is not None and stream is sys.stdout:
        sys.stdout = None
    elif stream is not None and stream is sys.stderr:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
