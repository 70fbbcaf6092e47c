"""Files that commands write: checked before the work, written as a whole after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilewhisper.engine.errors import OptionError


def check_writable(file: str | Path | None) -> None:
    """Raise OptionError if `file` is given and cannot be written."""
    if not file:
        return
    folder = Path(file).absolute().parent
    if Path(file).is_dir():
        raise OptionError(f"cannot write {file}: it is a directory; give a file name")
    if not folder.is_dir():
        raise OptionError(f"cannot write {file}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OptionError(f"cannot write {file}: no permission to write to {folder}")


def write(path: Path, text: str) -> None:
    """Write the whole file or nothing. Raises OptionError."""
    from tilewhisper.engine.output.writers import write_whole

    with writing(path):
        write_whole(path, text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside into an OptionError."""
    try:
        yield
    except OSError as e:
        raise OptionError(f"cannot write {path}: {e.strerror}") from e
