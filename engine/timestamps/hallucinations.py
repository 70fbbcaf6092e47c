"""Remove hallucinated segments from a window, and decide where the next window starts.

The rules are openai-whisper's and need word timestamps. A segment is anomalous if its words are improbable, or much
shorter or longer than spoken words. An anomalous segment between silences is removed with all segments after it, and
the next window starts at its start, after the silence, where the model often transcribes correctly.

Frames are 10 ms, times are seconds of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.constants import FRAMES_PER_SECOND, FRAMES_PER_TIMESTAMP, FRAMES_PER_WINDOW

_PUNCTUATION = PUNCTUATION.prepended + PUNCTUATION.appended
_SCORED_WORDS = 8
_EDGE = 2.0
"""Seconds. A segment this close to the window's edge may have silence next to it outside the window."""
_MIN_ADVANCE = FRAMES_PER_TIMESTAMP
"""Frames. The next window always starts later than this one, whatever the word timestamps are."""


@dataclass(frozen=True)
class WindowPosition:
    """The position of a window in its file, in frames."""

    first: int
    frames: int
    """Frames with audio, without padding."""
    file_frames: int
    """Length of the file."""

    @property
    def start(self) -> float:
        """Start of the window in seconds."""
        return self.first / FRAMES_PER_SECOND

    @property
    def audio_end(self) -> float:
        """End of the window's audio in seconds."""
        return (self.first + self.frames) / FRAMES_PER_SECOND

    @property
    def end(self) -> float:
        """End of the window in seconds, padding included."""
        return (self.first + FRAMES_PER_WINDOW) / FRAMES_PER_SECOND


@dataclass(frozen=True)
class FilteredWindow:
    """The remaining segments of a window, and where the next window starts."""

    segments: tuple[Segment, ...]
    seek: int
    """First frame of the next window."""
    last_speech: float
    """End of the last word so far, in seconds."""


def word_anomaly_score(word: Word) -> float:
    """The anomaly score of a word: 1 if improbable, plus a penalty for durations outside 0.133 to 2 s."""
    duration = word.end - word.start
    improbable = 1.0 if word.probability < 0.15 else 0.0
    return improbable + 15 * max(0.0, 0.133 - duration) + max(0.0, duration - 2.0)


def is_anomalous(segment: Segment | None) -> bool:
    """Whether the scores of the segment's first words are high; False for no segment and for no words."""
    if segment is None or not segment.words:
        return False
    scored = [word for word in segment.words if word.word not in _PUNCTUATION][:_SCORED_WORDS]
    score = sum(word_anomaly_score(word) for word in scored)
    return score >= 3 or score + 0.01 >= len(scored)


def last_word_end(segments: Sequence[Segment]) -> float | None:
    """The end of the last word, or of the last segment if there are no words; None if there are no segments."""
    ends = [segment.words[-1].end for segment in segments if segment.words]
    if ends:
        return ends[-1]
    return segments[-1].end if segments else None


def filter_hallucinations(
    segments: Sequence[Segment],
    window: WindowPosition,
    seek: int,
    *,
    ends_in_silence: bool,
    last_speech: float,
    threshold: float | None,
) -> FilteredWindow:
    """Remove hallucinated segments from a window whose segments have words.

    `seek` is the next window's first frame according to the timestamp tokens; `ends_in_silence` is true if the window
    ended with a single timestamp token. `threshold` is the duration in seconds of the silence around a hallucination
    (`hallucination_silence_threshold`), None to keep all segments.
    """
    if not ends_in_silence:
        seek = _after_last_word(segments, window, seek, threshold)
    if threshold is not None:
        first = _first_with_words(segments)
        if first is not None and is_anomalous(first) and first.start - window.start > threshold:
            return FilteredWindow((), _advance(window, first.start), last_speech)
        if (index := _find_hallucination(segments, window, last_speech, threshold)) is not None:
            seek = _seek_without(segments[index], window, threshold)
            segments = segments[:index]
    end = last_word_end(segments)
    return FilteredWindow(tuple(segments), seek, last_speech if end is None else end)


def _after_last_word(segments: Sequence[Segment], window: WindowPosition, seek: int, threshold: float | None) -> int:
    """The next window's first frame by the last word, which is more exact than the timestamp tokens.

    With a threshold, silence up to that duration at the window's end is skipped.
    """
    end = last_word_end(segments)
    if end is None or end <= window.start:
        return seek
    if threshold is not None and window.end - end <= threshold:
        return window.first + window.frames
    return _advance(window, end)


def _find_hallucination(
    segments: Sequence[Segment], window: WindowPosition, last_speech: float, threshold: float
) -> int | None:
    """The index of the first anomalous segment with silence before it, and silence or an anomalous segment after it."""
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_anomalous(segment):
            following = _first_with_words(segments[i + 1 :])
            next_start = following.words[0].start if following and following.words else window.audio_end
            silence_before = (
                segment.start - last_speech > threshold
                or segment.start < threshold
                or segment.start - window.start < _EDGE
            )
            silence_after = (
                next_start - segment.end > threshold or is_anomalous(following) or window.end - segment.end < _EDGE
            )
            if silence_before and silence_after:
                return i
        last_speech = segment.end
    return None


def _seek_without(segment: Segment, window: WindowPosition, threshold: float) -> int:
    """The next window's first frame if this segment is removed.

    It is the segment's start, at least 1 s after the window's start; or the file's end, if the segment ends near it.
    """
    if window.file_frames / FRAMES_PER_SECOND - segment.end < threshold:
        return window.file_frames
    return round(max(window.start + 1, segment.start) * FRAMES_PER_SECOND)


def _first_with_words(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment.words), None)


def _advance(window: WindowPosition, time: float) -> int:
    return max(round(time * FRAMES_PER_SECOND), window.first + _MIN_ADVANCE)
