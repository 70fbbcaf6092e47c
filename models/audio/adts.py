"""Find the runs of intact frames in raw AAC files (ADTS, ISO/IEC 13818-7): libav skips damage between them silently."""

from typing import BinaryIO

from tilewhisper.models.audio import mpeg
from tilewhisper.models.audio.sections import Part

SYNC = b"\xff"  # the first byte of a frame
HEADER_BYTES = 7
SEARCH_BYTES = 65_536
FRAMES_IN_A_ROW = 3  # after damage: other bytes may look like one frame


def runs(handle: BinaryIO) -> list[Part]:
    """The runs of intact frames in a seekable file, in order; empty if it does not begin with a frame or an ID3 tag.

    Reads the header of every frame.
    """
    start: int | None = mpeg.id3_bytes(handle)
    found: list[Part] = []
    while start is not None and (end := _end_of_run(handle, start)) > start:
        found.append(Part(start, end))
        start = _next_run(handle, end)
    return found


def _end_of_run(handle: BinaryIO, position: int) -> int:
    while size := _frame_bytes(handle, position):
        position += size
    return position


def _next_run(handle: BinaryIO, position: int) -> int | None:
    handle.seek(position)
    while data := handle.read(SEARCH_BYTES):
        index = data.find(SYNC)
        while index >= 0:
            frame = position + index
            for _ in range(FRAMES_IN_A_ROW):
                size = _frame_bytes(handle, frame)
                frame += size
                if not size:
                    break
            else:
                return position + index
            index = data.find(SYNC, index + 1)
        position += len(data)
        handle.seek(position)
    return None


def _frame_bytes(handle: BinaryIO, position: int) -> int:
    """The size of the frame at `position`, 0 if there is none that is complete."""
    handle.seek(position)
    header = handle.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:1] != SYNC or header[1] & 0xF6 != 0xF0:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    handle.seek(position + size - 1)
    return size if size > HEADER_BYTES and handle.read(1) else 0
