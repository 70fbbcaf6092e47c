"""Decode one file at its own rates, by libsndfile (`soundfiles`) or else by libav (`containers`), link by link."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import BinaryIO

from tilewhisper.models.audio import containers, ogg, soundfiles
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import Block, Samples, join
from tilewhisper.models.audio.sections import section
from tilewhisper.models.errors import AudioError

BLOCK_SAMPLES = 65_536  # at the file's own rate; libav's packets of 20 ms are merged into blocks of this size


def blocks(handle: BinaryIO, name: str, log: AudioLog, track: int | str | None = None) -> Iterator[Block]:
    """Decode a seekable binary file from its beginning, and record in `log` how it was read.

    `track` is the number, from 1 on, or the language code of one of its audio tracks; None takes the main one. Raises
    `AudioError` for a file that cannot be decoded or has no such track.
    """
    refuse_empty(handle, name)
    links = ogg.links(handle) if ogg.is_ogg(handle) else []
    if len(links) > 1 or any(link.damaged for link in links):
        yield from _chain(handle, links, name, log, track)
    else:
        yield from _link(handle, name, log, track)
    if links and links[-1].cut_off:
        log.problems.append(f"it ends within an Ogg page, after {log.seconds:.1f} s; its full length is not stated")


def refuse_empty(handle: BinaryIO, name: str) -> None:
    """Raise `AudioError` for a file of 0 bytes."""
    if handle.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected an audio file")


def _chain(
    handle: BinaryIO, links: Sequence[ogg.Link], name: str, log: AudioLog, track: int | str | None
) -> Iterator[Block]:
    first_error = None
    for number, link in enumerate(links, 1):
        part = AudioLog()
        try:
            yield from _link(section(handle, link.start, link.end), name, part, track, gapless=link.damaged)
        except AudioError as error:
            first_error = first_error or error
            part.problems.append(f"part {number} of {len(links)} could not be decoded")
        log.append(part)
    if first_error and not log.seconds:
        raise first_error


def _link(
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
