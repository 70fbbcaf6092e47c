"""Write a file as a whole or not at all: its old content stays until the new one is complete."""

import os
from pathlib import Path

_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")
"""The system's names of a process's open streams, which may be files."""


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step, by way of a temporary file beside it. Raises OSError.

    A symbolic link stays, and its target is replaced. A device or pipe, such as /dev/stdout, is written directly. Half
    a surrogate pair, which only a file name can hold, becomes a question mark.
    """
    content = text.encode("utf-8", "replace")
    if is_special(path):
        with path.open("ab") as file:  # a file behind /dev/stdout has other output already
            file.write(content)
        return
    path = Path(os.path.realpath(path))
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_beside(path: Path) -> Path:
    """An unused name in the folder of `path`; short, because the name of `path` may be as long as the system allows."""
    return path.with_name(f".{os.urandom(4).hex()}.part")


def is_special(path: Path) -> bool:
    """Whether it is an open stream, device, pipe or socket, which must not be replaced by a file. Raises OSError."""
    stream = str(path).startswith(_STREAMS)
    return path.exists() and (stream or not (path.is_file() or path.is_dir()))
