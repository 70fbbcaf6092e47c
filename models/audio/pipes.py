"""Pipes and file objects, which can be read only once: copied, because decoders move back and forth."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

from tilewhisper.models.audio.spill import MEMORY_BYTES, writing_temporary
from tilewhisper.models.errors import AudioError

MAX_BYTES = 4 << 30
"""A pipe may never end. This is 37 hours of 16-bit mono at 16 kHz, or a week of mp3."""
_PIECE_BYTES = 1 << 20


@contextmanager
def copied(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The rest of `file` as a seekable file, in memory while it is small. Raises `AudioError`."""
    check_readable(file, name)
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as copy:
        while piece := _piece(file, name):
            if copy.tell() + len(piece) > MAX_BYTES:
                raise AudioError(
                    f"{name}: is still not at its end after {MAX_BYTES / 2**30:g} GiB; save the audio as a file and "
                    "transcribe that"
                )
            with writing_temporary():
                copy.write(piece)
                copy.flush()
        yield cast(BinaryIO, copy)


def check_readable(file: BinaryIO, name: str) -> None:
    """Raise `AudioError` for a file object that is a device."""
    with suppress(AttributeError, OSError, ValueError):  # no file of the system, or a closed one, which fails later
        refuse_device(os.fstat(file.fileno()).st_mode, name)


def refuse_device(mode: int, name: str) -> None:
    """Raise `AudioError` for a device such as /dev/zero, by the mode that `stat` gives."""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise AudioError(f"{name}: is a device; expected an audio file, or a pipe with the content of one")


def _piece(file: IO[bytes], name: str) -> bytes:
    try:
        piece = file.read(_PIECE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: closed, or text that does not decode
        raise AudioError(f"{name}: cannot be read: {error}") from error
    if not isinstance(piece, bytes):
        raise AudioError(f"{name}: its read() returns {type(piece).__name__}, not bytes; open it in binary mode")
    return piece
