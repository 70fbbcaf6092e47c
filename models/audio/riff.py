"""The size of a WAV file's samples where its header states too little, as after a crash of the recorder."""

import os
import struct
from typing import BinaryIO

LEAST_BYTES = 16_000  # behind the stated end: fewer are taken for something else than samples


def unstated_samples(handle: BinaryIO) -> tuple[int, int] | None:
    """(offset of the size field, size) of the samples where more follow than the header states, else None.

    They follow where the bytes behind the stated end are no chunk: neither a name of four printable characters nor a
    size that fits. `handle` is seekable.
    """
    end = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    position, samples = 12, None
    while position + 8 <= end:
        handle.seek(position)
        name, size = struct.unpack("<4sI", handle.read(8))
        if samples is not None and not _is_chunk(name, size, end - position - 8):
            left = end - samples - 4
            return (samples, left) if end - position >= LEAST_BYTES else None
        if name == b"data":
            samples = position + 4
        position += 8 + size + size % 2
    return None


def _is_chunk(name: bytes, size: int, left: int) -> bool:
    return all(32 <= byte < 127 for byte in name) and size <= left
