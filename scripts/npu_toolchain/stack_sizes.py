"""The stack that the functions of an object file use, as clang's -fstack-size-section states it.

The section `.stack_sizes` of an ELF file holds for each function its address and the bytes of its frame, in ULEB128.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class _Layout:
    """Where a class of ELF files keeps its table of sections."""

    header: str
    """Offset of the table, size of an entry, number of entries, index of the section with the names."""
    header_at: tuple[int, int]
    section: str
    """Name, offset and size."""
    address_bytes: int


_LAYOUTS = {
    1: _Layout("<I", (0x20, 0x2E), "<I12xII", 4),
    2: _Layout("<Q", (0x28, 0x3A), "<I20xQQ", 8),
}
"""By the ELF file's class: 32 or 64 bits; little endian."""


def largest_frame(file: bytes) -> int | None:
    """Bytes of the largest frame; None if the file does not state any. Calls among the functions are not added."""
    try:
        return max((size for section in _stack_sections(file) for size in section), default=None)
    except (struct.error, IndexError, ValueError):
        return None


def _stack_sections(file: bytes) -> Iterator[list[int]]:
    layout = _LAYOUTS.get(file[4]) if file.startswith(b"\x7fELF") else None
    if not layout:
        return
    (table,) = struct.unpack_from(layout.header, file, layout.header_at[0])
    entry, count, names = struct.unpack_from("<HHH", file, layout.header_at[1])
    sections = [struct.unpack_from(layout.section, file, table + i * entry) for i in range(count)]
    _, names_at, names_size = sections[names]
    strings = file[names_at : names_at + names_size]
    for name, at, size in sections:
        if strings[name : strings.index(0, name)] == b".stack_sizes":
            yield list(_frames(file[at : at + size], layout.address_bytes))


def _frames(section: bytes, address_bytes: int) -> Iterator[int]:
    at = 0
    while at < len(section):
        at += address_bytes
        size = shift = 0
        while True:
            byte = section[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield size
