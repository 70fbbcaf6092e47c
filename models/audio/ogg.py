"""Split an Ogg file into its links, and check its pages (RFC 3533).

Ogg files may be joined by concatenation: each link of such a chain is a file of its own, whose codec, rate and channels
may differ from those of the link before. Decoders lose later links that differ, so each link is decoded alone.
"""

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tilewhisper.models.audio.sections import Part

CAPTURE = b"OggS"
HEADER_BYTES = 27  # followed by a lacing value for each segment
FIRST_PAGE = 0x02  # flag of the first page of a logical stream
SEARCH_BYTES = 65_536

# Ogg's CRC-32 has zlib's polynomial, but takes the bits of a byte from the other end.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    start: int
    intact: bool
    first: bool
    stream: bytes
    number: int


def is_ogg(handle: BinaryIO) -> bool:
    """Whether a seekable file begins with an Ogg page."""
    handle.seek(0)
    return handle.read(len(CAPTURE)) == CAPTURE


def links(handle: BinaryIO) -> list[Part]:
    """The links of a seekable Ogg file, in order. Reads the whole file, page by page."""
    found: list[Part] = []
    start, only_first_pages, damaged, cut_off = 0, True, False, False
    next_numbers: dict[bytes, int] = {}  # by logical stream
    for page in _pages(handle):
        if page.first and not only_first_pages:
            found.append(Part(start, page.start, damaged, cut_off))
            start, damaged, cut_off = page.start, False, False
            next_numbers.clear()
        only_first_pages = page.first
        damaged |= cut_off or (page.intact and page.number != next_numbers.get(page.stream, page.number))
        cut_off = not page.intact
        next_numbers[page.stream] = page.number + 1
    return [*found, Part(start, handle.seek(0, os.SEEK_END), damaged, cut_off)]


def _pages(handle: BinaryIO) -> Iterator[_Page]:
    position = 0
    while (start := _next_capture(handle, position)) is not None:
        handle.seek(start)
        header = handle.read(HEADER_BYTES)
        lacing = handle.read(header[-1]) if len(header) == HEADER_BYTES else b""
        body = handle.read(sum(lacing))
        intact = header[22:26] == _crc(header[:22] + bytes(4) + header[26:] + lacing + body)
        # A damaged page may have a wrong size: the next one is looked for inside it.
        position = start + (HEADER_BYTES + len(lacing) + len(body) if intact else len(CAPTURE))
        first = intact and bool(header[5] & FIRST_PAGE)
        yield _Page(start, intact, first, header[14:18], int.from_bytes(header[18:22], "little"))


def _next_capture(handle: BinaryIO, position: int) -> int | None:
    """The offset of the next page's capture pattern from `position` on."""
    handle.seek(position)
    while data := handle.read(SEARCH_BYTES):
        if (index := data.find(CAPTURE)) >= 0:
            return position + index
        position += max(1, len(data) - len(CAPTURE) + 1)
        handle.seek(position)
    return None


def _crc(page: bytes) -> bytes:
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return value.to_bytes(4, "big").translate(_REVERSED)
