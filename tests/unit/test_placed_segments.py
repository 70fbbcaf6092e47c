"""Segments moved to their times in the file: after silence was cut out, and where VAD found silence around them."""

from dataclasses import replace

import pytest

from tilewhisper.engine.pipeline.frontend import AudioFeatures
from tilewhisper.engine.pipeline.transcription import placed
from tilewhisper.engine.results import Segment, Word
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.log_mel import LogMel
from tilewhisper.models.audio.vad import SpeechSpan, Timeline
from tilewhisper.models.constants import SAMPLE_RATE

SPEECH = (SpeechSpan(0, 11 * SAMPLE_RATE), SpeechSpan(50 * SAMPLE_RATE, 60 * SAMPLE_RATE))
"""From 0 to 11 s and from 50 to 60 s; the cut is at 11 s of the joined audio."""
WITHOUT_VAD = AudioFeatures(LogMel(), 70.0, AudioLog(seconds=70.0).facts())
WHOLE = replace(WITHOUT_VAD, speech=SPEECH)
CUT_OUT = replace(WHOLE, timeline=Timeline(SPEECH))


def segment(start, end, words=None):
    return Segment(0, 0, start, end, " text", [], -0.1, 1.0, 0.0, words, 0.0)


@pytest.mark.parametrize(
    ("joined", "in_file"),
    [
        ((2.0, 9.0), (2.0, 9.0)),
        ((12.0, 14.0), (51.0, 53.0)),
        ((8.2, 11.0), (8.2, 11.0)),
        ((11.0, 13.5), (50.0, 52.5)),
    ],
)
def test_a_segment_of_joined_speech_gets_its_times_in_the_file(joined, in_file):
    moved = placed(segment(*joined), 3, CUT_OUT)
    assert (moved.id, moved.start, moved.end) == (3, *map(pytest.approx, in_file))


def test_words_take_their_segment_along():
    words = [Word(10.2, 10.9, " one", 0.9), Word(10.95, 11.3, " two", 0.9)]
    moved = placed(segment(10.0, 12.0, words), 0, CUT_OUT)
    assert [(round(word.start, 2), round(word.end, 2)) for word in moved.words] == [(10.2, 10.9), (49.95, 50.3)]
    assert (moved.start, moved.end) == (moved.words[0].start, moved.words[-1].end)


@pytest.mark.parametrize(
    ("decoded", "spoken"),
    [
        ((2.0, 9.0), (2.0, 9.0)),
        ((8.0, 49.0), (8.0, 11.0)),  # ends where the next speech is about to start
        ((11.5, 53.0), (50.0, 53.0)),  # starts right after the speech before
        ((8.0, 53.0), (8.0, 53.0)),  # a chunk has less than 30 s: the model saw the pause in it
        ((20.0, 30.0), (20.0, 30.0)),  # VAD may be wrong
        ((59.0, 65.0), (59.0, 60.0)),
    ],
)
def test_a_segment_of_a_chunk_leaves_the_silence_around_it(decoded, spoken):
    moved = placed(segment(*decoded), 1, WHOLE)
    assert (moved.start, moved.end) == spoken


def test_words_in_a_chunk_stay():
    words = [Word(10.2, 10.9, " one", 0.9), Word(12.0, 12.3, " two", 0.9)]
    assert placed(segment(10.2, 12.3, words), 0, WHOLE).words == words


def test_without_vad_times_stay():
    assert placed(segment(1.0, 2.0), 5, WITHOUT_VAD) == replace(segment(1.0, 2.0), id=5)


def test_only_a_cut_of_a_second_or_more_is_a_pause():
    spans = [SpeechSpan(int(a * SAMPLE_RATE), int(b * SAMPLE_RATE)) for a, b in [(0, 1), (2.9, 4), (5, 7), (7.5, 8)]]
    assert Timeline(spans).pauses == pytest.approx((1.0, 2.1))
