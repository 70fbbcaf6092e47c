"""Whisper's seek loop without audio or model: which window comes next, and the segments of a decoded window.

Each window starts where the one before it says, by its last timestamp or its last word, and sees the text before it.
The rules are openai-whisper's. A frame is 10 ms; times are seconds of the audio that is transcribed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.prompt import History, Prompt
from tilewhisper.engine.pipeline.quality import is_silence
from tilewhisper.engine.pipeline.window_split import SegmentTokens, split_window
from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.hallucinations import WindowPosition, filter_hallucinations
from tilewhisper.engine.timestamps.punctuation import Punctuation
from tilewhisper.engine.timestamps.words import add_word_timestamps, text_tokens
from tilewhisper.models.constants import FRAMES_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

MIN_FRAMES = 10
"""Audio shorter than this, 0.1 s, is not worth a window: it is too short for a word."""

Align = Callable[[Sequence[int]], tuple[Sequence[float], Sequence[float]]]
"""Text tokens of a window to their times (n + 1), in seconds from its start, and probabilities (n)."""


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


def clips_of(options: TranscriptionOptions, content: int) -> list[Clip]:
    """The clips of `clip_timestamps` within `content` frames."""
    edges = [[min(round(min(t * FRAMES_PER_SECOND, content)), content) for t in clip] for clip in options.clips]
    return [Clip(*edge) for edge in edges]


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
    ) -> None:
        """`content` is the frames of audio in all; `last_speech` is the end of the speech before the first clip."""
        self._options = options
        self._history = History(options, tokenizer, text_context)
        self._reader = _WindowReader(content, options, tokenizer, last_speech)
        self._clips = iter(clips)
        self._end = clips[-1].last if clips else 0
        self._clip = next(self._clips, None)
        self.request = self._next(self._clip.first if self._clip else 0)
        """The next window; None at the end."""

    @property
    def position(self) -> int:
        """The frame before which everything is transcribed."""
        return self.request.seek if self.request else self._end

    def accept(self, result: WindowResult) -> tuple[Segment, ...]:
        """Take the result of `request`, move on to the next window, and return the segments, not numbered yet."""
        request, decoded = self.request, result.decoded
        assert request is not None and self._clip is not None, "no window was requested"
        if is_silence(decoded, self._options) or self._reader.is_wordless(decoded):
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
            seek = self._clip.first if self._clip else seek
        if self._clip is None:
            return None
        longest = self._options.longest_chunk * FRAMES_PER_SECOND
        return WindowRequest(seek, min(longest, self._clip.last - seek), self._history.next_prompt())


class _WindowReader:
    """From a decoded window to its segments."""

    def __init__(self, content: int, options: TranscriptionOptions, tokenizer: Tokenizer, last_speech: float) -> None:
        self._content, self._options, self._tokenizer = content, options, tokenizer
        self._punctuation = Punctuation(options.prepend_punctuations, options.append_punctuations)
        self._last_speech = last_speech

    def read(self, request: WindowRequest, result: WindowResult, *, closed: bool) -> tuple[tuple[Segment, ...], int]:
        """The window's segments, without empty ones, and the frame the next window starts at."""
        decoded = result.decoded
        split = split_window(decoded.tokens, self._tokenizer.timestamp_begin, request.frames, closed=closed)
        segments = [self._segment(request.seek, tokens, decoded) for tokens in split.segments]
        seek = request.seek + split.advance
        if self._options.word_timestamps:
            segments, seek = self._with_words(segments, request, result, seek, ends_in_silence=split.ends_in_silence)
        inside = (self._clamp(segment) for segment in segments)
        return tuple(segment for segment in inside if segment.start < segment.end and segment.text.strip()), seek

    def is_wordless(self, decoded: DecodedWindow) -> bool:
        """Whether the text is punctuation only, which Whisper writes for noise, however sure it is of it."""
        text = self._tokenizer.decode(decoded.tokens)
        checked = self._options.no_speech_threshold is not None
        return checked and bool(text.strip()) and not any(character.isalnum() for character in text)

    def _with_words(
        self, segments: list[Segment], request: WindowRequest, result: WindowResult, seek: int, *, ends_in_silence: bool
    ) -> tuple[list[Segment], int]:
        """The segments with their words, hallucinated ones dropped, and the frame the next window starts at."""
        text = [token for segment in segments for token in text_tokens(segment, self._tokenizer)]
        times, probabilities = result.align(text) if text else ([0.0], [])
        timed = add_word_timestamps(
            segments,
            times,
            probabilities,
            self._tokenizer,
            result.language,
            last_speech=self._last_speech,
            punctuation=self._punctuation,
        )
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

    def _clamp(self, segment: Segment) -> Segment:
        """Limit a segment to the audio: the model may well end it later."""
        end = self._content / FRAMES_PER_SECOND
        return replace(segment, start=min(segment.start, end), end=min(segment.end, end))
