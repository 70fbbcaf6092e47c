"""Cut a window's tokens into segments by their timestamps, and say where the next window starts.

Times are in frames of 10 ms counted from the start of the window; a timestamp token is two frames. The rules are
Whisper's own: a pair of timestamps ends one segment and starts the next; text after the last pair is cut off in the
middle and decoded again by a window that starts there; a single timestamp at the end says that no speech follows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewhisper.models.constants import FRAMES_PER_TIMESTAMP


@dataclass(frozen=True)
class Span:
    """One segment of a window: tokens with their timestamps, start and end in frames from the window's start."""

    tokens: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class WindowSpans:
    spans: tuple[Span, ...]
    advance: int
    """Frames from this window's start to the next one's; always positive."""
    ends_in_silence: bool
    """Whether a single timestamp says that no speech follows it."""


def split_window(tokens: Sequence[int], timestamp_begin: int, frames: int, *, closed: bool = False) -> WindowSpans:
    """Segments of a window that holds `frames` frames of audio.

    `closed` says that the window ends in a silence, as one that was cut there does: text after the last pair of
    timestamps is not cut off, and ends with the window.
    """

    def frame(token: int) -> int:
        return (token - timestamp_begin) * FRAMES_PER_TIMESTAMP

    stamped = [token >= timestamp_begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if stamped[i] and stamped[i - 1]]
    ends_in_silence = stamped[-2:] == [False, True]
    if closed and cuts and not stamped[-1]:
        tokens, ends_in_silence = [*tokens, timestamp_begin + frames // FRAMES_PER_TIMESTAMP], True
    if not cuts:
        stamps = [token for token in tokens if token > timestamp_begin]
        return WindowSpans((Span(tuple(tokens), 0, frame(stamps[-1]) if stamps else frames),), frames, ends_in_silence)
    if ends_in_silence:
        cuts.append(len(tokens))
    spans = tuple(Span(part, frame(part[0]), frame(part[-1])) for part in _pieces(tokens, cuts))
    advance = frames if ends_in_silence else max(frame(tokens[cuts[-1] - 1]), FRAMES_PER_TIMESTAMP)
    return WindowSpans(spans, advance, ends_in_silence)


def _pieces(tokens: Sequence[int], cuts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    start = 0
    for cut in cuts:
        yield tuple(tokens[start:cut])
        start = cut
