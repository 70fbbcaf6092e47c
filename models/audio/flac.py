"""Find the files of a chain of FLAC files, joined by concatenation: libsndfile stops at the end of the first."""

import os
from itertools import pairwise
from typing import BinaryIO

from tilewhisper.models.audio.sections import Part

START = b"fLaC\0\0\0\x22"  # the signature, and the header of the metadata that must come first
LAST_START = b"fLaC\x80\0\0\x22"  # the same where no other metadata follows
READ_BYTES = 2**20


def is_flac(handle: BinaryIO) -> bool:
    """Whether a seekable file begins with a FLAC signature."""
    handle.seek(0)
    return handle.read(4) == START[:4]


def files(handle: BinaryIO) -> list[Part]:
    """The FLAC files in a seekable file, in order. Reads the whole file once."""
    starts, offset, rest = set(), 0, b""
    handle.seek(0)
    while data := handle.read(READ_BYTES):
        data = rest + data
        for signature in (START, LAST_START):
            index = data.find(signature)
            while index >= 0:
                starts.add(offset + index)
                index = data.find(signature, index + 1)
        rest = data[-len(START) + 1 :]
        offset += len(data) - len(rest)
    return [Part(*ends) for ends in pairwise([*sorted(starts), handle.seek(0, os.SEEK_END)])]
