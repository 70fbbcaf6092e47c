"""Segments of speech that was joined without its silence, moved back to their times in the file."""

from dataclasses import replace

import pytest

from tilewhisper.engine.pipeline.transcription import placed
from tilewhisper.engine.results import Segment, Word
from tilewhisper.models.audio.vad import SpeechSpan, Timeline
from tilewhisper.models.constants import SAMPLE_RATE

TIMELINE = Timeline([SpeechSpan(0, 11 * SAMPLE_RATE), SpeechSpan(50 * SAMPLE_RATE, 60 * SAMPLE_RATE)])
"""Speech from 0 to 11 s and from 50 to 60 s; the cut is at 11 s of the joined audio."""


def segment(start, end, words=None):
    return Segment(0, 0, start, end, " text", [], -0.1, 1.0, 0.0, words, 0.0)


def times(start, end):
    moved = placed(segment(start, end), 3, TIMELINE)
    assert moved.id == 3
    return round(moved.start, 3), round(moved.end, 3)


@pytest.mark.parametrize(
    ("joined", "in_file"),
    [
        ((2.0, 9.0), (2.0, 9.0)),
        ((12.0, 14.0), (51.0, 53.0)),
        ((8.2, 11.0), (8.2, 11.0)),
        ((11.0, 13.5), (50.0, 52.5)),
        ((10.96, 13.5), (50.0, 52.5)),  # starts just before the cut: it belongs to the speech that follows
        ((8.2, 11.14), (8.2, 11.0)),  # ends just after the cut: it belongs to the speech before
        ((10.96, 11.1), (50.0, 50.1)),  # the longer part decides
        ((10.9, 11.04), (10.9, 11.0)),
        ((8.0, 14.0), (8.0, 53.0)),  # has speech on both sides
    ],
)
def test_a_segment_belongs_to_the_side_of_a_cut_where_its_speech_is(joined, in_file):
    assert times(*joined) == in_file


def test_words_take_their_segment_along():
    words = [Word(10.2, 10.9, " one", 0.9), Word(10.95, 11.3, " two", 0.9)]
    moved = placed(segment(10.0, 12.0, words), 0, TIMELINE)
    assert [(round(word.start, 2), round(word.end, 2)) for word in moved.words] == [(10.2, 10.9), (49.95, 50.3)]
    assert (moved.start, moved.end) == (moved.words[0].start, moved.words[-1].end)


def test_without_cuts_times_stay():
    assert placed(segment(1.0, 2.0), 5, None) == replace(segment(1.0, 2.0), id=5)
