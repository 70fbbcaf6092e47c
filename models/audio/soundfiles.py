"""Decode the formats libsndfile reads (wav, flac, ogg, aiff, caf, …) at the file's own rate.

`blocks` raises `UseLibav` for files that libav (`containers`) handles better:
    - formats libsndfile does not know, and files it fails on part-way (libav reports how much is intact)
    - MPEG audio: libsndfile's decoder writes its warnings straight to stderr, libav's is silent
    - streams whose header states no length (0 frames, or 2**63 - 1)
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from tilewhisper.models.audio.recording import Block, refuse_truncated, to_mono

BLOCK_FRAMES = 65_536
UNKNOWN_FRAMES = 2**62
# Recorders that write to a pipe cannot know the size and put 0x7FFFF000 (sox), 0x80000000 or 0xFFFFFFFF (ffmpeg).
UNKNOWN_BYTES = 0x7FFFF000
# Matches libsndfile's parsing log where a chunk is larger than the file. RIFF's own size is ignored: writers that
# append chunks get it wrong while all samples are there. For RF64 and W64, the log mentions the outer size only.
SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class UseLibav(Exception):  # noqa: N818 (control flow, not an error the user sees)
    """libsndfile cannot read this file, or not to its end."""


def blocks(handle: BinaryIO, name: str) -> Iterator[Block]:
    """Decode a seekable binary file from its beginning.

    Raises `UseLibav`, before the first block or part-way; after the last block, `AudioError` when the header states
    clearly more audio than the file holds.
    """
    handle.seek(0)
    if _is_mpeg(handle.read(3)):
        raise UseLibav
    handle.seek(0)
    try:
        with soundfile.SoundFile(handle) as file:
            if not 0 < file.frames < UNKNOWN_FRAMES:
                raise UseLibav
            frames, rate = 0, int(file.samplerate)
            # Channels are averaged block by block, so that an hour of eight channels is never in memory at once.
            while len(channels := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                frames += len(channels)
                yield Block(to_mono(channels), rate)
            stated_frames, log = int(file.frames), str(file.extra_info)
    # TypeError: the extension of a headerless format, for which soundfile wants a rate
    except (soundfile.LibsndfileError, TypeError) as error:
        raise UseLibav from error
    seconds = frames / rate
    refuse_truncated(name, max(stated_frames / rate, seconds * _stated_ratio(log)), seconds)


def _stated_ratio(log: str) -> float:
    """Stated size / actual size of the audio data; 1 where the sizes agree or the header states none."""
    ratios = [int(stated) / max(int(found), 1) for stated, found in SHORT_CHUNK.findall(log) if _known(int(stated))]
    return max(ratios, default=1.0)


def _known(size: int) -> bool:
    return 0 < size < UNKNOWN_BYTES


def _is_mpeg(head: bytes) -> bool:
    # An ID3 tag, or the eleven set bits every MPEG audio frame begins with.
    return head == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0)
