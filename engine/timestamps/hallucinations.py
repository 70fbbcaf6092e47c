"""Text invented where nobody speaks: which of a window's segments to believe, and where the next window starts.

The rules are openai-whisper's, and need the words' times. Words that are improbable, or far shorter or longer than
people say them, make a segment suspect; a suspect segment with silence around it is dropped, and the next window starts
after the silence before it, where the model may well hear what is really there.

Frames are 10 ms, times are seconds of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.constants import FRAMES_PER_SECOND, FRAMES_PER_WINDOW

_MARKS = PUNCTUATION.prepended + PUNCTUATION.appended
_WORDS_JUDGED = 8
_EDGE = 2.0
"""Seconds; what lies so near to a window's edge may have silence behind it that the window does not show."""
_LEAST_ADVANCE = 2
"""Frames, one timestamp: whatever the words say, the next window starts later than this one."""


@dataclass(frozen=True)
class WindowPlace:
    """Where a window lies in its file, in frames."""

    first: int
    frames: int
    """Those that hold audio."""
    file_frames: int

    @property
    def start(self) -> float:
        return self.first / FRAMES_PER_SECOND

    @property
    def audio_end(self) -> float:
        return (self.first + self.frames) / FRAMES_PER_SECOND

    @property
    def end(self) -> float:
        """Of a full window, whether there is audio up to there or not."""
        return (self.first + FRAMES_PER_WINDOW) / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Believed:
    """The segments of a window that stand, and where to go on."""

    segments: tuple[Segment, ...]
    seek: int
    """First frame of the next window."""
    last_speech: float
    """End of the last word so far."""


def word_anomaly(word: Word) -> float:
    """How unlike speech a word is: 1 for one that is improbable, more the further from 0.133 to 2 s it lasts."""
    duration = word.end - word.start
    improbable = 1.0 if word.probability < 0.15 else 0.0
    return improbable + 15 * max(0.0, 0.133 - duration) + max(0.0, duration - 2.0)


def is_suspect(segment: Segment | None) -> bool:
    """Whether the first words of a segment add up to an invention; no segment and no words are none."""
    if segment is None or not segment.words:
        return False
    judged = [word for word in segment.words if word.word not in _MARKS][:_WORDS_JUDGED]
    score = sum(word_anomaly(word) for word in judged)
    return score >= 3 or score + 0.01 >= len(judged)


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """Of the last word, or of the last segment where there are no words; None where there are no segments."""
    ends = [segment.words[-1].end for segment in segments if segment.words]
    if ends:
        return ends[-1]
    return segments[-1].end if segments else None


def believe(
    segments: Sequence[Segment],
    window: WindowPlace,
    seek: int,
    *,
    ends_in_silence: bool,
    last_speech: float,
    threshold: float | None,
) -> Believed:
    """What stands of a window whose segments have their words.

    `seek` is the next window's first frame by the timestamps alone; `ends_in_silence` says that a single timestamp
    ended the window; `threshold` is the silence around an invention in seconds, None to believe all.
    """
    if not ends_in_silence:
        seek = _after_last_word(segments, window, seek, threshold)
    if threshold is not None:
        first = _next_spoken(segments)
        if first is not None and is_suspect(first) and first.start - window.start > threshold:
            return Believed((), _advance(window, first.start), last_speech)
        if (suspect := _find_invention(segments, window, last_speech, threshold)) is not None:
            seek = _before(segments[suspect], window, threshold)
            segments = segments[:suspect]
    end = last_word_end(segments)
    return Believed(tuple(segments), seek, last_speech if end is None else end)


def _after_last_word(segments: Sequence[Segment], window: WindowPlace, seek: int, threshold: float | None) -> int:
    """Words know better than timestamps where speech ended; with a threshold, little silence is not looked at again."""
    end = last_word_end(segments)
    if end is None or end <= window.start:
        return seek
    if threshold is not None and window.end - end <= threshold:
        return window.first + window.frames
    return _advance(window, end)


def _find_invention(
    segments: Sequence[Segment], window: WindowPlace, last_speech: float, threshold: float
) -> int | None:
    """The first suspect segment with silence, or another suspect, on either side."""
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_suspect(segment):
            following = _next_spoken(segments[i + 1 :])
            next_start = following.words[0].start if following and following.words else window.audio_end
            silence_before = (
                segment.start - last_speech > threshold
                or segment.start < threshold
                or segment.start - window.start < _EDGE
            )
            silence_after = (
                next_start - segment.end > threshold or is_suspect(following) or window.end - segment.end < _EDGE
            )
            if silence_before and silence_after:
                return i
        last_speech = segment.end
    return None


def _before(segment: Segment, window: WindowPlace, threshold: float) -> int:
    """Where to go on without this segment: at its start, but a second on at least; at the end if that is near."""
    if window.file_frames / FRAMES_PER_SECOND - segment.end < threshold:
        return window.file_frames
    return round(max(window.start + 1, segment.start) * FRAMES_PER_SECOND)


def _next_spoken(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment.words), None)


def _advance(window: WindowPlace, time: float) -> int:
    return max(round(time * FRAMES_PER_SECOND), window.first + _LEAST_ADVANCE)
