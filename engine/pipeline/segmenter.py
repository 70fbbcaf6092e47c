"""Whisper's seek loop without audio or model: which window comes next, and the segments of a decoded window.

Each window starts where the one before it says, by its last timestamp or its last word, and sees the text before it.
The rules are openai-whisper's. A frame is 10 ms; times are seconds of the audio that is transcribed.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.prompt import History, Prompt
from tilewhisper.engine.pipeline.quality import is_silence
from tilewhisper.engine.pipeline.window_split import SegmentTokens, split_window
from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.alignment import TokenTimes
from tilewhisper.engine.timestamps.cuts import crosses, split_at_cuts
from tilewhisper.engine.timestamps.hallucinations import WindowPosition, filter_hallucinations
from tilewhisper.engine.timestamps.punctuation import Punctuation
from tilewhisper.engine.timestamps.words import add_word_timestamps, text_tokens
from tilewhisper.models.audio.facts import Gap
from tilewhisper.models.constants import FRAMES_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

MIN_FRAMES = 10
"""Audio shorter than this, 0.1 s, is not worth a window: it is too short for a word."""

Align = Callable[[Sequence[int]], tuple[TokenTimes, Sequence[float]]]
"""Text tokens of a window to their times and probabilities."""


@dataclass(frozen=True)
class Clip:
    """A part of the audio to transcribe: frames first..last-1."""

    first: int
    last: int


@dataclass(frozen=True)
class WindowRequest:
    """A window to decode: `frames` frames from frame `seek` on."""

    seek: int
    frames: int
    prompt: Prompt

    @property
    def clip(self) -> Clip:
        return Clip(self.seek, self.seek + self.frames)


@dataclass(frozen=True)
class WindowResult:
    """A decoded window, and the function that aligns its text to the audio."""

    decoded: DecodedWindow
    language: str
    align: Align
    supported: bool = True
    """False if no-speech is probable and the text is no more probable with the audio than with silence."""


def clips_of(options: TranscriptionOptions, content: int) -> list[Clip]:
    """The clips of `clip_timestamps` within `content` frames."""
    edges = [[min(round(min(t * FRAMES_PER_SECOND, content)), content) for t in clip] for clip in options.clips]
    return [Clip(*edge) for edge in edges]


def clips_between(silences: Sequence[Gap], content: int) -> list[Clip]:
    """All of `content` frames except the silences, so that windows start with audio, at its time."""
    edges = [0, *(round(time * FRAMES_PER_SECOND) for gap in silences for time in (gap.start, gap.end)), content]
    return [Clip(min(first, content), min(last, content)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


class Segmenter:
    """Goes through clips of one file's audio: `request` is the next window, `accept` takes its result."""

    def __init__(
        self,
        clips: Sequence[Clip],
        content: int,
        options: TranscriptionOptions,
        tokenizer: Tokenizer,
        text_context: int,
        last_speech: float = 0.0,
        cuts: Sequence[float] = (),
    ) -> None:
        """`content` is the frames of audio in all; `last_speech` is the end of the speech before the first clip.

        At the `cuts`, in ascending seconds, a pause is missing from the audio: no segment reaches over one.
        """
        self._options = options
        self._history = History(options, tokenizer, text_context)
        self._reader = _WindowReader(content, options, tokenizer, last_speech, cuts)
        self._clips = iter(clips)
        self._end = max((clip.last for clip in clips), default=0)
        self._clip: Clip | None = Clip(0, 0)
        self.request = self._next(0)
        """The next window; None at the end."""

    @property
    def token_logprobs(self) -> Sequence[tuple[int, float]]:
        """The tokens of all segments so far, each with its log-probability, without those of a prefix."""
        return self._reader.token_logprobs

    @property
    def position(self) -> int:
        """Where the next window starts; at the end, the end of the audio to transcribe."""
        return self.request.seek if self.request else self._end

    def accept(self, result: WindowResult) -> tuple[Segment, ...]:
        """Take the result of `request`, move on to the next window, and return the segments, not numbered yet."""
        request, decoded = self.request, result.decoded
        assert request is not None and self._clip is not None, "no window was requested"
        if not result.supported or is_silence(decoded, self._options) or self._reader.is_wordless(decoded):
            self.request = self._next(request.seek + request.frames)
            return ()
        closed = self._options.batch_size is not None and request.clip == self._clip
        segments, seek = self._reader.read(request, result, closed=closed)
        self._history.add((token for segment in segments for token in segment.tokens), decoded.temperature)
        self.request = self._next(seek)
        return segments

    def _next(self, seek: int) -> WindowRequest | None:
        while self._clip and self._clip.last - seek < MIN_FRAMES:
            self._clip = next(self._clips, None)
            if self._clip:
                seek = self._clip.first
                self._reader.start_clip(self._clip)
        if self._clip is None:
            return None
        longest = self._options.longest_chunk * FRAMES_PER_SECOND
        return WindowRequest(seek, min(longest, self._clip.last - seek), self._history.next_prompt())


class _WindowReader:
    """From a decoded window to its segments."""

    def __init__(
        self,
        content: int,
        options: TranscriptionOptions,
        tokenizer: Tokenizer,
        last_speech: float,
        cuts: Sequence[float],
    ) -> None:
        self._content, self._options, self._tokenizer = content, options, tokenizer
        self._punctuation = Punctuation(options.prepend_punctuations, options.append_punctuations)
        self._last_speech, self._cuts = last_speech, cuts
        self.token_logprobs: list[tuple[int, float]] = []

    def start_clip(self, clip: Clip) -> None:
        """Forget the speech after the clip's start, which a clip before it in the list may have had."""
        self._last_speech = min(self._last_speech, clip.first / FRAMES_PER_SECOND)

    def read(self, request: WindowRequest, result: WindowResult, *, closed: bool) -> tuple[tuple[Segment, ...], int]:
        """The window's segments, without empty ones, and the frame the next window starts at."""
        decoded = result.decoded
        split = split_window(decoded.tokens, self._tokenizer.timestamp_begin, request.frames, closed=closed)
        segments = [self._segment(request.seek, tokens, decoded) for tokens in split.segments]
        seek = request.seek + split.advance
        self._add_logprobs(decoded, sum(len(part.tokens) for part in split.segments))
        cuts = self._cuts_in(request.clip)
        if self._options.word_timestamps:
            segments, seek = self._without_hallucinations(
                self._with_words(segments, result, cuts), request, seek, ends_in_silence=split.ends_in_silence
            )
        segments = self._between_cuts(segments, result, cuts)
        inside = (_clamped(segment, request.clip) for segment in segments)
        return tuple(segment for segment in inside if segment.start < segment.end and segment.text.strip()), seek

    def is_wordless(self, decoded: DecodedWindow) -> bool:
        """Whether the text is punctuation only, which Whisper writes for noise, however sure it is of it."""
        text = self._tokenizer.decode(decoded.tokens)
        checked = self._options.no_speech_threshold is not None
        return checked and bool(text.strip()) and not any(character.isalnum() for character in text)

    def _add_logprobs(self, decoded: DecodedWindow, taken: int) -> None:
        """Add the first `taken` tokens of a window; the text after them is decoded again by the next window."""
        prefix = len(decoded.tokens) - len(decoded.logprobs)
        self.token_logprobs += zip(decoded.tokens[prefix:taken], decoded.logprobs, strict=False)

    def _cuts_in(self, window: Clip) -> Sequence[float]:
        first = bisect.bisect_right(self._cuts, window.first / FRAMES_PER_SECOND)
        return self._cuts[first : bisect.bisect_left(self._cuts, window.last / FRAMES_PER_SECOND)]

    def _between_cuts(self, segments: list[Segment], result: WindowResult, cuts: Sequence[float]) -> list[Segment]:
        """The segments, those that reach over a cut split there, by their words where they have none yet."""
        if not any(crosses(segment, cuts) for segment in segments):
            return segments
        timed = segments if self._options.word_timestamps else self._with_words(segments, result, cuts)
        split: list[Segment] = []
        for segment, with_words in zip(segments, timed, strict=True):
            if not crosses(segment, cuts) or not with_words.words:
                split.append(segment)
                continue
            parts = split_at_cuts(replace(segment, words=with_words.words), cuts, self._tokenizer)
            split += (part if segment.words else replace(part, words=None) for part in parts)
        return split

    def _with_words(self, segments: list[Segment], result: WindowResult, cuts: Sequence[float]) -> list[Segment]:
        """The segments with their words."""
        text = [token for segment in segments for token in text_tokens(segment, self._tokenizer)]
        times, probabilities = result.align(text) if text else (TokenTimes([0.0], []), [])
        return add_word_timestamps(
            segments,
            times,
            probabilities,
            self._tokenizer,
            result.language,
            last_speech=self._last_speech,
            punctuation=self._punctuation,
            cuts=cuts,
        )

    def _without_hallucinations(
        self, timed: list[Segment], request: WindowRequest, seek: int, *, ends_in_silence: bool
    ) -> tuple[list[Segment], int]:
        """The segments without hallucinated ones, and the frame the next window starts at."""
        filtered = filter_hallucinations(
            timed,
            WindowPosition(request.seek, request.frames, self._content),
            seek,
            ends_in_silence=ends_in_silence,
            last_speech=self._last_speech,
            threshold=self._options.hallucination_silence_threshold,
        )
        self._last_speech = filtered.last_speech
        return list(filtered.segments), filtered.seek

    def _segment(self, seek: int, part: SegmentTokens, decoded: DecodedWindow) -> Segment:
        return Segment(
            id=0,
            seek=seek,
            start=(seek + part.start) / FRAMES_PER_SECOND,
            end=(seek + part.end) / FRAMES_PER_SECOND,
            text=self._tokenizer.decode(part.tokens),
            tokens=list(part.tokens),
            avg_logprob=decoded.avg_logprob,
            compression_ratio=decoded.compression_ratio,
            no_speech_prob=decoded.no_speech_prob,
            words=None,
            temperature=decoded.temperature,
        )


def _clamped(segment: Segment, window: Clip) -> Segment:
    """The segment limited to its window's audio: the model may well end it later, in the silence that pads it."""
    end = window.last / FRAMES_PER_SECOND
    return replace(segment, start=min(segment.start, end), end=min(segment.end, end))
