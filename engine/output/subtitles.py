"""Subtitles from segments: which words are shown together, on which lines, and when.

The rules are openai-whisper's. Without word times each segment is a subtitle. With them, words are laid out: a subtitle
starts with each segment and after every `max_words_per_line` words of it, and a line ends before it would exceed
`max_line_width`. With both a width and a line count, subtitles run across segments and end with their last line or at a
long pause.

Times are whole milliseconds. Knows no file format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import WORDS_GROUP, validate
from tilewhisper.engine.results import Segment, Word
from tilewhisper.models.option_fields import Range, option

_UNLIMITED = 1000
"""Characters, or words, of a line without a limit; openai-whisper's number."""
_LONG_PAUSE = 3.0
"""Seconds from the start of a word to the start of the next."""
_LIMIT = Range(1)


@dataclass(frozen=True)
class SubtitleOptions:
    """How words are laid out as subtitles. Raises OptionError for a value that is not allowed."""

    max_line_width: int | None = option(None, "most characters of a subtitle's line", _LIMIT, group=WORDS_GROUP)
    max_line_count: int | None = option(
        None, "most lines of a subtitle; needs max_line_width", _LIMIT, group=WORDS_GROUP
    )
    max_words_per_line: int | None = option(None, "most words of a subtitle", _LIMIT, group=WORDS_GROUP)
    highlight_words: bool = option(False, "underline each word of srt and vtt while it is spoken", group=WORDS_GROUP)

    def __post_init__(self) -> None:
        validate(self)

    def check(self, *, word_timestamps: bool) -> None:
        """Raise OptionError for an option that needs word times when there will be none."""
        given = [field.name for field in fields(self) if getattr(self, field.name)]
        if given and not word_timestamps:
            raise OptionError(f"{given[0]} needs word times: set word_timestamps to True too")

    def notes(self) -> tuple[str, ...]:
        """Options without effect, a line each. They are no errors, because openai-whisper accepts and warns."""
        ineffective = []
        if self.max_line_count and not self.max_line_width:
            ineffective.append("max_line_count has no effect without max_line_width")
        if self.max_words_per_line and self.max_line_width and self.max_line_count:
            ineffective.append("max_words_per_line has no effect with max_line_width and max_line_count")
        return tuple(ineffective)

    @property
    def across_segments(self) -> bool:
        return self.max_line_width is not None and self.max_line_count is not None


PLAIN = SubtitleOptions()


@dataclass(frozen=True)
class Subtitle:
    """A text and when it is shown."""

    start: int
    """Milliseconds."""
    end: int
    text: str


def milliseconds(seconds: float) -> int:
    """Seconds in whole milliseconds, rounded."""
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
    """A word on its line; its text includes the space or line break before it."""

    start: int
    end: int
    text: str


def _lay_out(segments: Sequence[Segment], options: SubtitleOptions) -> Iterator[list[_Placed]]:
    """The words of each subtitle, with their line breaks."""
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
    """The words of each segment, at most `size` at a time."""
    for segment in segments:
        words = segment.words or []
        yield from (words[i : i + size] for i in range(0, len(words), size))


def _placed(word: Word, text: str) -> _Placed:
    return _Placed(milliseconds(word.start), milliseconds(word.end), text)


def _highlighted(placed: Sequence[_Placed]) -> Iterator[Subtitle]:
    """The whole text once per word, that word underlined; without an underline in the gaps between words."""
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
