"""Split a window's tokens into segments at their timestamps, and find where the next window starts.

Times are in frames of 10 ms from the start of the window. The rules are Whisper's own: a pair of timestamps ends one
segment and starts the next; text after the last pair is incomplete and decoded again by a window that starts there; a
single timestamp at the end says that no speech follows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewhisper.models.constants import FRAMES_PER_TIMESTAMP


@dataclass(frozen=True)
class SegmentTokens:
    """One segment of a window: tokens with their timestamps; start and end in frames from the window's start."""

    tokens: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class WindowSplit:
    segments: tuple[SegmentTokens, ...]
    advance: int
    """Frames from this window's start to the next one's; always positive."""
    ends_in_silence: bool
    """Whether a single timestamp says that no speech follows it."""


def split_window(tokens: Sequence[int], timestamp_begin: int, frames: int, *, closed: bool = False) -> WindowSplit:
    """Segments of a window that holds `frames` frames of audio; the model may well end them later.

    `closed` says that the window was cut at a silence: text after the last pair of timestamps is complete, and ends
    with the window.
    """

    def frame(token: int) -> int:
        return (token - timestamp_begin) * FRAMES_PER_TIMESTAMP

    is_timestamp = [token >= timestamp_begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_timestamp[i] and is_timestamp[i - 1]]
    ends_in_silence = is_timestamp[-2:] == [False, True]
    if closed and cuts and not is_timestamp[-1]:
        tokens, ends_in_silence = [*tokens, timestamp_begin + frames // FRAMES_PER_TIMESTAMP], True
    if not cuts:
        timestamps = [token for token in tokens if token > timestamp_begin]
        end = frame(timestamps[-1]) if timestamps else frames
        return WindowSplit((SegmentTokens(tuple(tokens), 0, end),), frames, ends_in_silence)
    if ends_in_silence:
        cuts.append(len(tokens))
    segments = tuple(SegmentTokens(part, frame(part[0]), frame(part[-1])) for part in _parts(tokens, cuts))
    last = frames if ends_in_silence else frame(tokens[cuts[-1] - 1])
    advance = min(max(last, FRAMES_PER_TIMESTAMP), frames)
    return WindowSplit(segments, advance, ends_in_silence)


def _parts(tokens: Sequence[int], cuts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    start = 0
    for cut in cuts:
        yield tuple(tokens[start:cut])
        start = cut
