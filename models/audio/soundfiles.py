"""Decode the formats libsndfile reads (wav, flac, ogg, aiff, caf, …) at the file's own rate.

`blocks` raises `UseLibav` for files that libav (`containers`) handles better:
    - formats libsndfile does not know, and files it fails on part-way (libav reports how much is intact)
    - MPEG audio: libsndfile's decoder writes its warnings straight to stderr, libav's is silent
    - streams whose header states no length (0 frames, or 2**63 - 1)
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from tilewhisper.models.audio import mpeg, riff
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import Block, to_mono
from tilewhisper.models.audio.sections import patched, section

BLOCK_FRAMES = 65_536
UNKNOWN_FRAMES = 2**62
# Recorders that write to a pipe cannot know the size and put 0x7FFFF000 (sox), 0x80000000 or 0xFFFFFFFF (ffmpeg).
UNKNOWN_BYTES = 0x7FFFF000
# Matches libsndfile's parsing log where a chunk is larger than the file. RIFF's own size is ignored: writers that
# append chunks get it wrong while all samples are there. For RF64 and W64, the log mentions the outer size only.
SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class UseLibav(Exception):  # noqa: N818 (control flow, not an error the user sees)
    """libsndfile cannot read this file, or not to its end."""


def blocks(handle: BinaryIO, log: AudioLog) -> Iterator[Block]:
    """Decode a seekable binary file from its beginning, and record the length its header states.

    Raises `UseLibav`, before the first block or part-way.
    """
    try:
        with soundfile.SoundFile(_samples_only(handle)) as file:
            if not 0 < file.frames < UNKNOWN_FRAMES:
                raise UseLibav
            frames, rate = 0, int(file.samplerate)
            # Channels are averaged block by block, so that an hour of eight channels is never in memory at once.
            while len(channels := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                frames += len(channels)
                yield Block(to_mono(channels), rate)
            stated_frames, text = int(file.frames), str(file.extra_info)
    # TypeError: the extension of a headerless format, for which soundfile wants a rate
    except (soundfile.LibsndfileError, TypeError) as error:
        raise UseLibav from error
    seconds = frames / rate
    log.compare(max(stated_frames / rate, seconds * _stated_ratio(text)), seconds)


def _samples_only(handle: BinaryIO) -> BinaryIO:
    """The file without an ID3 tag, and with its true size where the header of a WAV file states too little."""
    if tag := mpeg.id3_bytes(handle):
        handle = section(handle, tag, handle.seek(0, os.SEEK_END))
    handle.seek(0)
    head = handle.read(4)
    if mpeg.starts_frame(head):
        raise UseLibav
    if head == b"riff":  # W64 with wrong sizes makes libsndfile seek to negative positions, which a section allows
        return section(handle, 0, handle.seek(0, os.SEEK_END))
    if unstated := riff.unstated_samples(handle):
        offset, size = unstated
        handle = patched(handle, offset, size.to_bytes(4, "little"))
    handle.seek(0)
    return handle


def _stated_ratio(log: str) -> float:
    """Stated size / actual size of the audio data; 1 where the sizes agree or the header states none."""
    ratios = [int(stated) / max(int(found), 1) for stated, found in SHORT_CHUNK.findall(log) if _known(int(stated))]
    return max(ratios, default=1.0)


def _known(size: int) -> bool:
    return 0 < size < UNKNOWN_BYTES
