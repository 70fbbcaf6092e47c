"""MPEG audio's Xing header: whether a file is as long, in bytes, as the header states."""

import os
from typing import BinaryIO

TAGS = (b"Xing", b"Info")
SEARCH_BYTES = 4096  # the header is in the first frame
HAS_FRAMES, HAS_BYTES = 1, 2
BEFORE_TAG = 36  # most bytes of the frame before the tag, all of which the stated size counts


def starts_frame(head: bytes) -> bool:
    """Whether the bytes begin with the eleven set bits of an MPEG audio frame."""
    return len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0


def is_whole(handle: BinaryIO) -> bool:
    """Whether a seekable file holds all bytes its Xing header counts; False where there is no such count.

    Where it does, a number of frames that cannot be decoded is an error of the header, not of the audio.
    """
    start = id3_bytes(handle)
    handle.seek(start)
    head = handle.read(SEARCH_BYTES)
    tag = min((index for index in map(head.find, TAGS) if index >= 0), default=-1)
    if tag < 0 or not head[tag + 7] & HAS_BYTES:
        return False
    first = tag + (12 if head[tag + 7] & HAS_FRAMES else 8)
    stated = int.from_bytes(head[first : first + 4], "big")
    return handle.seek(0, os.SEEK_END) - (start + tag - BEFORE_TAG) >= stated


def id3_bytes(handle: BinaryIO) -> int:
    """The size of the ID3v2 tags at the start of a seekable file, 0 without one."""
    size = 0
    handle.seek(0)
    while len(head := handle.read(10)) == 10 and head.startswith(b"ID3"):
        footer = 10 if head[5] & 0x10 else 0
        size += 10 + footer + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        handle.seek(size)
    return size
