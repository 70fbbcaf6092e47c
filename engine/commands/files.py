"""Files that commands write: checked before the work, written as a whole after it."""

import errno
import os
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.files import is_special, temporary_beside, write_whole


def check_writable(file: str | Path | None) -> None:
    """Raise OptionError if `file` is given and cannot be written. Tries its folder with an empty temporary file."""
    if not file:
        return
    if str(file) == "-":
        raise OptionError("cannot write -: for standard output give /dev/stdout, for a file of this name ./-")
    path = Path(os.path.realpath(file))
    with writing(file):
        if is_special(Path(file)):
            return
        with suppress(FileNotFoundError):
            path.stat()  # else a name that is too long would only be missing, from Python 3.14 on
        if path.is_dir():
            raise OptionError(f"cannot write {file}: it is a directory; give a file name")
        if not path.parent.is_dir():
            raise OptionError(f"cannot write {file}: there is no folder {path.parent}; create it first")
        trial = temporary_beside(path)
        trial.touch(exist_ok=False)
        trial.unlink()


def output_file(word: str) -> Path:
    """A flag's value as a file that can be written. Raises ArgumentTypeError."""
    try:
        check_writable(word)
    except OptionError as e:
        raise ArgumentTypeError(str(e)) from None
    return Path(word)


def check_separate(outputs: Iterable[tuple[str, str | Path | None]], inputs: Iterable[str | Path]) -> None:
    """Raise OptionError if an output would overwrite an input or another output. Outputs are (flag, file)."""
    taken = {os.path.realpath(file): "an input" for file in inputs}
    for flag, file in outputs:
        if not file or is_special(Path(file)):
            continue
        path = os.path.realpath(file)
        if path in taken:
            raise OptionError(f"{flag} {file} would overwrite {taken[path]}; give another name or folder")
        taken[path] = f"the file of {flag}"


def write(path: Path, text: str) -> None:
    """Write the whole file or nothing. Raises OptionError."""
    with writing(path):
        write_whole(path, text)


def write_all(texts: Iterable[tuple[Path, str]]) -> None:
    """Write every file that can be written, then raise OptionError for the others."""
    failures = []
    for path, text in texts:
        try:
            write(path, text)
        except OptionError as e:
            failures.append(str(e))
    if failures:
        raise OptionError("; ".join(failures))


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError inside into an OptionError."""
    try:
        yield
    except OSError as e:
        size = len(os.fsencode(Path(path).name))
        too_long = f"its name ({size} bytes) or path is too long for this system; shorten it"
        raise OptionError(f"cannot write {path}: {too_long if e.errno == errno.ENAMETOOLONG else e.strerror}") from e
