"""Decode one file at its own rates, by libsndfile (`soundfiles`) or else by libav (`containers`), link by link."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import BinaryIO

from tilewhisper.models.audio import adts, containers, flac, ogg, soundfiles
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import Block, Samples, join, silence
from tilewhisper.models.audio.sections import Part, section
from tilewhisper.models.audio.track_clock import JITTER_SECONDS, TAGS
from tilewhisper.models.errors import AudioError

BLOCK_SAMPLES = 65_536  # at the file's own rate; libav's packets of 20 ms are merged into blocks of this size
SILENCE_RATE = 16_000


def blocks(handle: BinaryIO, name: str, log: AudioLog, track: int | str | None = None) -> Iterator[Block]:
    """Decode a seekable binary file from its beginning, and record in `log` how it was read.

    `track` is the number, from 1 on, or the language code of one of its audio tracks; None takes the main one. Raises
    `AudioError` for a file that cannot be decoded or has no such track.
    """
    refuse_empty(handle, name)
    parts = _joined(handle)
    if len(parts) > 1 or any(part.damaged or part.start for part in parts):
        yield from _parts(handle, parts, name, log, track)
    else:
        yield from _part(handle, name, log, track)
    if parts and parts[-1].cut_off:
        log.problems.append(f"it ends within an Ogg page, after {log.seconds:.1f} s; its full length is not stated")


def _joined(handle: BinaryIO) -> Sequence[Part]:
    """The parts of a file that decoders do not read to its end; empty for other formats."""
    if ogg.is_ogg(handle):
        return ogg.links(handle)
    return flac.files(handle) if flac.is_flac(handle) else adts.runs(handle)


def refuse_empty(handle: BinaryIO, name: str) -> None:
    """Raise `AudioError` for a file of 0 bytes."""
    if handle.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected an audio file")


def _parts(
    handle: BinaryIO, parts: Sequence[Part], name: str, log: AudioLog, track: int | str | None
) -> Iterator[Block]:
    first_error = None
    end, seconds_per_byte = parts[0].start, 0.0
    for number, part in enumerate(parts, 1):
        if not _is_tag(handle, end):
            yield from _silence((part.start - end) * seconds_per_byte, log)
        part_log = AudioLog()
        try:
            yield from _part(section(handle, part.start, part.end), name, part_log, track, gapless=part.damaged)
        except AudioError as error:
            first_error = first_error or error
            part_log.problems.append(f"part {number} of {len(parts)} could not be decoded")
        log.append(part_log)
        end, seconds_per_byte = part.end, part_log.seconds / (part.end - part.start)
    if first_error and not log.seconds:
        raise first_error


def _is_tag(handle: BinaryIO, position: int) -> bool:
    handle.seek(position)
    return handle.read(len(max(TAGS, key=len))).startswith(TAGS)


def _silence(seconds: float, log: AudioLog) -> Iterator[Block]:
    """Silence for bytes between two parts that belong to neither."""
    if seconds > JITTER_SECONDS:
        log.add_gap(log.seconds, seconds)
        log.add_silence(log.seconds, seconds)
        for block in silence(round(seconds * SILENCE_RATE), SILENCE_RATE):
            log.seconds += block.seconds
            yield block


def _part(
    handle: BinaryIO, name: str, log: AudioLog, track: int | str | None, *, gapless: bool = False
) -> Iterator[Block]:
    """Decode a file, or a link of a chain; with `gapless`, every gap between timestamps is damage."""
    done = 0
    # libsndfile knows only one track, and leaves out damaged pages without putting silence there.
    if track is None and not gapless:
        try:
            for block in soundfiles.blocks(handle, log):
                done += len(block.samples)
                log.seconds += block.seconds
                yield block
        except soundfiles.UseLibav:
            pass
        else:
            return
    for block in _without_first(done, _merged(containers.blocks(handle, name, log, track, gapless=gapless))):
        log.seconds += block.seconds
        yield block


def _without_first(count: int, blocks: Iterator[Block]) -> Iterator[Block]:
    """Drop the first `count` samples of `blocks`."""
    for block in blocks:
        yield Block(block.samples[count:], block.rate)
        count = max(0, count - len(block.samples))


def _merged(blocks: Iterator[Block]) -> Iterator[Block]:
    """Merge small blocks of one rate until each has at least `BLOCK_SAMPLES`, except the last of a rate."""
    for rate, same in groupby(blocks, key=lambda block: block.rate):
        parts: list[Samples] = []
        merged = 0
        for block in same:
            parts.append(block.samples)
            merged += len(block.samples)
            if merged >= BLOCK_SAMPLES:
                yield Block(join(parts), rate)
                parts, merged = [], 0
        if merged:
            yield Block(join(parts), rate)
