"""The size that an avi, wav, caf or asf file states for itself."""

from typing import BinaryIO

SEARCH_BYTES = 16_384
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_SIZE_OFFSET = 40  # of the file's size in this object
UNKNOWN_SIZE = 0x7FFFF000  # this, 0 or more is left by writers that could not go back, as after a crash or into a pipe


def stated_size(handle: BinaryIO) -> int | None:
    """The stated size in bytes of a seekable avi, wav, caf or asf file; None where it states none."""
    handle.seek(0)
    head = handle.read(SEARCH_BYTES)
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if 0 < size < UNKNOWN_SIZE else None
    if head.startswith(b"caff"):
        return _end_of_caf(head)
    properties = head.find(ASF_FILE_PROPERTIES)
    field = head[properties + ASF_SIZE_OFFSET : properties + ASF_SIZE_OFFSET + 8]
    return int.from_bytes(field, "little") or None if properties >= 0 else None


def _end_of_caf(head: bytes) -> int | None:
    position = 8
    while position + 12 <= len(head):
        size = int.from_bytes(head[position + 4 : position + 12], "big", signed=True)
        if size < 0:
            return None
        if head[position : position + 4] == b"data":
            return position + 12 + size
        position += 12 + size
    return None
