"""From segments to subtitles: which words stand together, on which lines, and from when to when.

The rules are openai-whisper's. Without words a segment is a subtitle. With words they are laid out anew: a segment
starts a subtitle, and so does every `max_words_per_line` words of it; a line that would get wider than
`max_line_width` is broken. Where both a width and a count are given subtitles run across segments instead, and end
with their last line or at a long pause.

Times are whole milliseconds. Knows no file format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.results import Segment, Word

_UNLIMITED = 1000
"""Characters of a line, words of a line: openai-whisper's word for no limit."""
_LONG_PAUSE = 3.0
"""Seconds from the start of one word to the start of the next."""


@dataclass(frozen=True)
class SubtitleOptions:
    """How words are laid out as subtitles. Raises OptionError for a limit below 1."""

    max_line_width: int | None = None
    """Characters."""
    max_line_count: int | None = None
    max_words_per_line: int | None = None
    highlight_words: bool = False
    """A subtitle a word, that word underlined."""

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise OptionError(f"{name} must be at least 1, not {limit}")

    def check(self, *, word_timestamps: bool) -> None:
        """Raises OptionError where an option needs the words' times and there will be none."""
        asked = [field.name for field in fields(self) if getattr(self, field.name)]
        if asked and not word_timestamps:
            raise OptionError(f"{asked[0]} needs the words' times: ask for word_timestamps too")

    def notes(self) -> tuple[str, ...]:
        """What was asked for in vain, a line each. Not errors: openai-whisper takes these and warns."""
        vain = []
        if self.max_line_count and not self.max_line_width:
            vain.append("max_line_count has no effect without max_line_width")
        if self.max_words_per_line and self.max_line_width and self.max_line_count:
            vain.append("max_words_per_line has no effect with max_line_width and max_line_count")
        return tuple(vain)

    @property
    def across_segments(self) -> bool:
        return self.max_line_width is not None and self.max_line_count is not None


PLAIN = SubtitleOptions()


@dataclass(frozen=True)
class Subtitle:
    start: int
    """Milliseconds."""
    end: int
    text: str


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def subtitles(segments: Sequence[Segment], options: SubtitleOptions = PLAIN) -> Iterator[Subtitle]:
    """The subtitles of segments, in order."""
    if not segments or segments[0].words is None:
        for segment in segments:
            text = segment.text.strip().replace("-->", "->")
            yield Subtitle(milliseconds(segment.start), milliseconds(segment.end), text)
        return
    for placed in _lay_out(segments, options):
        if options.highlight_words:
            yield from _highlighted(placed)
        else:
            yield Subtitle(placed[0].start, placed[-1].end, "".join(word.text for word in placed))


@dataclass(frozen=True)
class _Placed:
    """A word on its line: its text holds the space, or the line break, that goes before it."""

    start: int
    end: int
    text: str


def _lay_out(segments: Sequence[Segment], options: SubtitleOptions) -> Iterator[list[_Placed]]:
    """The words of each subtitle."""
    width = options.max_line_width or _UNLIMITED
    subtitle: list[_Placed] = []
    line_width, lines = 0, 1
    previous_start: float | None = None
    for run in _runs(segments, options.max_words_per_line or _UNLIMITED):
        for i, word in enumerate(run):
            opens = i == 0 and not options.across_segments
            pause = options.across_segments and previous_start is not None and word.start - previous_start > _LONG_PAUSE
            previous_start = word.start
            if line_width and line_width + len(word.word) <= width and not pause and not opens:
                line_width += len(word.word)
                subtitle.append(_placed(word, word.word))
                continue
            text, line_break = word.word.strip(), ""
            full = options.max_line_count is not None and (pause or lines >= options.max_line_count)
            if subtitle and (opens or full):
                yield subtitle
                subtitle, lines = [], 1
            elif line_width:
                line_break, lines = "\n", lines + 1
            line_width = len(text)
            subtitle.append(_placed(word, line_break + text))
    if subtitle:
        yield subtitle


def _runs(segments: Sequence[Segment], size: int) -> Iterator[Sequence[Word]]:
    for segment in segments:
        words = segment.words or []
        yield from (words[i : i + size] for i in range(0, len(words), size))


def _placed(word: Word, text: str) -> _Placed:
    return _Placed(milliseconds(word.start), milliseconds(word.end), text)


def _highlighted(placed: Sequence[_Placed]) -> Iterator[Subtitle]:
    """The whole text again and again: each word underlined while it is said, none in the gaps between them."""
    texts = [word.text for word in placed]
    shown_until = placed[0].start
    for i, word in enumerate(placed):
        if shown_until != word.start:
            yield Subtitle(shown_until, word.start, "".join(texts))
        yield Subtitle(word.start, word.end, "".join([*texts[:i], _underlined(word.text), *texts[i + 1 :]]))
        shown_until = word.end


def _underlined(text: str) -> str:
    word = text.lstrip()
    return f"{text[: len(text) - len(word)]}<u>{word}</u>"
