"""The inputs of `transcribe`: files, the recordings in folders, and standard input."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from tilewhisper.engine.output import file_names
from tilewhisper.models.audio.folders import recordings_in
from tilewhisper.models.errors import AudioError

STDIN = "-"
"""The argument that stands for standard input. A file of this name is given as ./-"""


class StandardInput:
    """Standard input as a binary file object with a name that reads well in messages."""

    name = "standard input"

    def read(self, size: int = -1) -> bytes:
        return sys.stdin.buffer.read(size)

    def fileno(self) -> int:
        return sys.stdin.fileno()


def source(file: str) -> "str | BinaryIO":
    """What the model reads for an input."""
    return _standard_input() if file == STDIN else file


def shown(file: str) -> str:
    """An input's name in messages."""
    return StandardInput.name if file == STDIN else file


def check(file: str) -> None:
    """Raise AudioError for an input that cannot be read, without decoding it."""
    from tilewhisper.models.audio import pipes, reader  # they import numpy, which --help does not need

    if file != STDIN:
        reader.check_file(file)
    elif sys.stdin is None:
        raise AudioError(f"{StandardInput.name}: is closed; pipe audio into it, or name a file")
    elif sys.stdin.isatty():
        raise AudioError(
            f"{StandardInput.name}: is the terminal; pipe audio into it, for example: "
            "tilewhisper transcribe - < talk.mp3"
        )
    else:
        pipes.check_readable(_standard_input(), StandardInput.name)


def check_repeatable(file: str) -> None:
    """Raise AudioError for an input that cannot be read several times, as measurements do."""
    if file == STDIN or Path(file).is_fifo():
        raise AudioError(
            f"{shown(file)}: can be read only once, but is measured several times; save it as a file first"
        )
    check(file)


def may_wait(file: str) -> bool:
    """Whether it is a FIFO that perhaps nobody writes to; `<(command)`, /dev/fd/N, has its writer."""
    return Path(file).is_fifo() and not file.startswith("/dev/fd/")


def files_of(argument: str, *, recursive: bool) -> tuple[list[str], list[AudioError]]:
    """The input itself, or the recordings in a folder as of `recordings_in`. Raises AudioError."""
    if argument == STDIN or not os.path.isdir(argument):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        return [argument], []
    return recordings_in(argument, recursive=recursive)


def common_folder(arguments: Iterable[str]) -> str:
    """The innermost folder that holds every file and folder given, as an absolute path or "" (see `file_names`)."""
    paths = [os.path.abspath(argument) for argument in arguments if argument != STDIN]  # noqa: PTH100 (keeps links)
    folders = [path if Path(path).is_dir() else os.path.dirname(path) for path in paths]  # noqa: PTH120
    return file_names.common_folder(folders or [str(Path.cwd())])


def _standard_input() -> BinaryIO:
    return cast(BinaryIO, StandardInput())  # it has all that the reader uses
