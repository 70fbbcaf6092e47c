"""The size that an avi or asf file states for itself: without it, the length that its header states means nothing."""

from typing import BinaryIO

SEARCH_BYTES = 16_384
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_SIZE_OFFSET = 40  # of the file's size in this object
UNKNOWN = (0, 0xFFFFFFFF)  # left by writers that could not go back, as after a crash or into a pipe


def stated_size(handle: BinaryIO) -> int | None:
    """The stated size in bytes of a seekable avi or asf file; None where it states none."""
    handle.seek(0)
    head = handle.read(SEARCH_BYTES)
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        return None if size in UNKNOWN else size + 8
    properties = head.find(ASF_FILE_PROPERTIES)
    field = head[properties + ASF_SIZE_OFFSET : properties + ASF_SIZE_OFFSET + 8]
    return int.from_bytes(field, "little") or None if properties >= 0 else None
