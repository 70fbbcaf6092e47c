"""A stretch of audio, window after window: what is to be decoded next, and what segments come of it.

No audio and no model here: a `course` asks for a window, is sent what was decoded of it, and gives segments. Whoever
runs it may answer it alone or many together. The rules are openai-whisper's: each window starts where the one before
it says, by its last timestamp or by its last word, and sees the text before it.

A frame is 10 ms. Times are seconds of the audio that is gone through.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.prompt import History, Prompt
from tilewhisper.engine.pipeline.quality import is_silence
from tilewhisper.engine.pipeline.window_split import Span, split_window
from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.hallucinations import WindowPosition, filter_hallucinations
from tilewhisper.engine.timestamps.punctuation import Punctuation
from tilewhisper.engine.timestamps.words import add_word_timestamps, text_tokens
from tilewhisper.models.audio.reader import MIN_SECONDS
from tilewhisper.models.constants import FRAMES_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

MIN_FRAMES = round(MIN_SECONDS * FRAMES_PER_SECOND)
"""What is left after a last timestamp is not worth a window below this."""

Align = Callable[[Sequence[int]], tuple[Sequence[float], Sequence[float]]]
"""Text tokens of the window to their times (n + 1), in seconds from its start, and probabilities (n)."""


@dataclass(frozen=True)
class Stretch:
    """Frames first..last-1."""

    first: int
    last: int


@dataclass(frozen=True)
class WindowRequest:
    """A window to be decoded: `frames` frames from frame `seek` on."""

    seek: int
    frames: int
    prompt: Prompt


@dataclass(frozen=True)
class Reply:
    """What was decoded of it."""

    decoded: DecodedWindow
    language: str
    align: Align


@dataclass(frozen=True)
class Step:
    """The segments of the last window, and the next one; None at the end."""

    segments: tuple[Segment, ...]
    request: WindowRequest | None


Course = Generator[Step, Reply, None]


def course(
    stretches: Sequence[Stretch],
    content: int,
    options: TranscriptionOptions,
    tokenizer: Tokenizer,
    text_context: int,
    last_speech: float = 0.0,
) -> Course:
    """Go through the stretches of audio that has `content` frames in all.

    `last_speech` is when somebody last spoke before. Segments have no number yet: `id` is 0.
    """
    history = History(options, tokenizer, text_context)
    reader = _Reader(content, options, tokenizer, last_speech)
    longest = options.longest_chunk * FRAMES_PER_SECOND
    segments: tuple[Segment, ...] = ()
    for stretch in stretches:
        seek = stretch.first
        while stretch.last - seek >= MIN_FRAMES:
            asked = WindowRequest(seek, min(longest, stretch.last - seek), history.next_prompt())
            reply = yield Step(segments, asked)
            if is_silence(reply.decoded, options) or reader.is_wordless(reply.decoded):
                segments, seek = (), seek + asked.frames
                continue
            closed = options.batch_size is not None and seek == stretch.first and asked.frames == stretch.last - seek
            segments, seek = reader.read(asked, reply, closed=closed)
            history.add((token for segment in segments for token in segment.tokens), reply.decoded.temperature)
    yield Step(segments, None)


def clips(options: TranscriptionOptions, content: int) -> list[Stretch]:
    """What `clip_timestamps` leave of `content` frames."""
    edges = [[min(round(min(t * FRAMES_PER_SECOND, content)), content) for t in clip] for clip in options.clips]
    return [Stretch(*edge) for edge in edges]


class _Reader:
    """From a decoded window to its segments."""

    def __init__(self, content: int, options: TranscriptionOptions, tokenizer: Tokenizer, last_speech: float) -> None:
        self._content, self._options, self._tokenizer = content, options, tokenizer
        self._punctuation = Punctuation(options.prepend_punctuations, options.append_punctuations)
        self._last_speech = last_speech

    def read(self, asked: WindowRequest, reply: Reply, *, closed: bool) -> tuple[tuple[Segment, ...], int]:
        """The window's segments, without those that have no text or no length, and the frame to go on from."""
        decoded = reply.decoded
        cut = split_window(decoded.tokens, self._tokenizer.timestamp_begin, asked.frames, closed=closed)
        segments = [self._segment(asked.seek, span, decoded) for span in cut.spans]
        seek = asked.seek + cut.advance
        if self._options.word_timestamps:
            segments, seek = self._timed(segments, asked, reply, seek, ends_in_silence=cut.ends_in_silence)
        inside = (self._inside(segment) for segment in segments)
        return tuple(segment for segment in inside if segment.start < segment.end and segment.text.strip()), seek

    def is_wordless(self, decoded: DecodedWindow) -> bool:
        """Whether the text is marks alone, which is what Whisper writes for noise, however sure it is of them."""
        text = self._tokenizer.decode(decoded.tokens)
        wanted = self._options.no_speech_threshold is not None
        return wanted and bool(text.strip()) and not any(character.isalnum() for character in text)

    def _timed(
        self, segments: list[Segment], asked: WindowRequest, reply: Reply, seek: int, *, ends_in_silence: bool
    ) -> tuple[list[Segment], int]:
        """The segments with word timestamps, without hallucinations."""
        text = [token for segment in segments for token in text_tokens(segment, self._tokenizer)]
        times, probabilities = reply.align(text) if text else ([0.0], [])
        timed = add_word_timestamps(
            segments,
            times,
            probabilities,
            self._tokenizer,
            reply.language,
            last_speech=self._last_speech,
            punctuation=self._punctuation,
        )
        filtered = filter_hallucinations(
            timed,
            WindowPosition(asked.seek, asked.frames, self._content),
            seek,
            ends_in_silence=ends_in_silence,
            last_speech=self._last_speech,
            threshold=self._options.hallucination_silence_threshold,
        )
        self._last_speech = filtered.last_speech
        return list(filtered.segments), filtered.seek

    def _segment(self, seek: int, span: Span, decoded: DecodedWindow) -> Segment:
        return Segment(
            id=0,
            seek=seek,
            start=(seek + span.start) / FRAMES_PER_SECOND,
            end=(seek + span.end) / FRAMES_PER_SECOND,
            text=self._tokenizer.decode(span.tokens),
            tokens=list(span.tokens),
            avg_logprob=decoded.avg_logprob,
            compression_ratio=decoded.compression_ratio,
            no_speech_prob=decoded.no_speech_prob,
            words=None,
            temperature=decoded.temperature,
        )

    def _inside(self, segment: Segment) -> Segment:
        """Cut to the audio: the model may well say that a segment ends after it."""
        end = self._content / FRAMES_PER_SECOND
        return replace(segment, start=min(segment.start, end), end=min(segment.end, end))
