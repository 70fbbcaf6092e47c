"""Words laid out as subtitles: line widths, line counts, pauses and highlighted words."""

import io
import itertools
import random

import pytest

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import Subtitle, SubtitleOptions, subtitles
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.results import Segment, Word


def spoken(text: str, start: float = 0.0) -> list[Word]:
    """The words of a text, each one second long."""
    return [Word(start + i, start + i + 1, f" {word}", 0.9) for i, word in enumerate(text.split())]


def segment(words: list[Word] | None, text: str = "", start: float = 0.0, end: float = 1.0) -> Segment:
    return Segment(0, 0, start, end, text, [], -0.2, 1.0, 0.0, words, 0.0)


def texts(segments: list[Segment], **options) -> list[str]:
    return [one.text for one in subtitles(segments, SubtitleOptions(**options))]


def test_without_words_a_segment_is_a_subtitle():
    assert list(subtitles([segment(None, " a --> b ", 1.0005, 2.4996)])) == [Subtitle(1000, 2500, "a -> b")]


def test_word_times_replace_the_segments_times():
    assert list(subtitles([segment(spoken("one two", 3.0))])) == [Subtitle(3000, 5000, "one two")]


def test_each_segment_starts_a_subtitle():
    assert texts([segment(spoken("one two")), segment([]), segment(spoken("three"))]) == ["one two", "three"]
    assert texts([segment([])]) == []


def test_a_line_ends_before_it_is_too_wide():
    words = [segment(spoken("one two three four"))]
    assert texts(words, max_line_width=8) == ["one two\nthree\nfour"]
    assert texts(words, max_line_width=7) == ["one two\nthree\nfour"]
    assert texts(words, max_line_width=6) == ["one\ntwo\nthree\nfour"]
    assert texts(words, max_line_width=1) == ["one\ntwo\nthree\nfour"], "a word is never broken"


def test_with_a_width_and_a_count_subtitles_run_across_segments():
    segments = [segment(spoken("one two")), segment(spoken("three four five", 2.0))]
    assert texts(segments, max_line_width=9, max_line_count=2) == ["one two\nthree", "four five"]
    assert texts(segments, max_line_width=9) == ["one two", "three\nfour five"]


def test_a_long_pause_ends_a_subtitle_that_runs_across_segments():
    def with_pause(seconds: float) -> list[Segment]:
        return [segment(spoken("one two")), segment(spoken("three", 1.0 + seconds))]

    assert texts(with_pause(3.0), max_line_width=40, max_line_count=2) == ["one two three"]
    assert texts(with_pause(3.1), max_line_width=40, max_line_count=2) == ["one two", "three"]


def test_a_subtitle_has_at_most_the_given_number_of_words():
    assert texts([segment(spoken("one two three"))], max_words_per_line=2) == ["one two", "three"]


def test_each_word_is_underlined_while_it_is_spoken_and_none_in_a_gap():
    words = [Word(0.0, 1.0, " one", 0.9), Word(1.0, 1.5, " two", 0.9), Word(2.0, 3.0, " three", 0.9)]
    assert list(subtitles([segment(words)], SubtitleOptions(highlight_words=True, max_line_width=7))) == [
        Subtitle(0, 1000, "<u>one</u> two\nthree"),
        Subtitle(1000, 1500, "one <u>two</u>\nthree"),
        Subtitle(1500, 2000, "one two\nthree"),
        Subtitle(2000, 3000, "one two\n<u>three</u>"),
    ]


@pytest.mark.parametrize("name", ["max_line_width", "max_line_count", "max_words_per_line"])
def test_a_limit_below_1_is_refused(name):
    with pytest.raises(OptionError, match=f"^{name} must be >= 1, or None, got 0"):
        SubtitleOptions(**{name: 0})


@pytest.mark.parametrize("option", [{"max_line_width": 9}, {"max_words_per_line": 3}, {"highlight_words": True}])
def test_options_need_word_times(option):
    SubtitleOptions(**option).check(word_timestamps=True)
    with pytest.raises(OptionError, match=f"{next(iter(option))} needs word times: set word_timestamps to True too"):
        SubtitleOptions(**option).check(word_timestamps=False)
    SubtitleOptions().check(word_timestamps=False)


def test_options_without_effect_are_noted():
    assert SubtitleOptions(max_line_count=2).notes() == ("max_line_count has no effect without max_line_width",)
    assert len(SubtitleOptions(max_line_width=9, max_line_count=2, max_words_per_line=3).notes()) == 1
    assert SubtitleOptions(max_line_width=9, max_words_per_line=3).notes() == ()
    assert SubtitleOptions().notes() == ()


def test_random_segments_give_the_files_of_openai_whisper():
    theirs = pytest.importorskip("whisper.utils", exc_type=ImportError)
    random_ = random.Random(1)
    limits = itertools.product([None, 1, 7, 30], [None, 1, 2], [None, 1, 3], [False, True])
    for width, count, words, highlight in limits:
        options = {
            "max_line_width": width,
            "max_line_count": count,
            "max_words_per_line": words,
            "highlight_words": highlight,
        }
        segments = _random_segments(random_)
        result = {"segments": [{"words": [vars(word) for word in one.words or ()], **_times(one)} for one in segments]}
        for kind, writer in (("srt", theirs.WriteSRT), ("vtt", theirs.WriteVTT)):
            file = io.StringIO()
            writer(".").write_result(result, file, **options)
            assert WRITERS[kind].render(segments, None, SubtitleOptions(**options)) == file.getvalue()


def _random_segments(random_: random.Random) -> list[Segment]:
    segments, time = [], random_.choice([0.0, 3590.0])
    for _ in range(random_.randint(1, 4)):
        words = []
        for _ in range(random_.randint(0, 9)):
            start = time + random_.choice([0.0, 0.0, 0.4, 3.3])
            time = start + random_.choice([0.0, 0.25, 0.7])
            words.append(Word(start, time, random_.choice([" a", " longer", "日本", " end."]), 0.5))
        segments.append(segment(words, start=time, end=time))
    return segments


def _times(one: Segment) -> dict[str, float]:
    return {"start": one.start, "end": one.end}
