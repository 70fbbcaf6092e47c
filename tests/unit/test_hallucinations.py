"""Which segments of a window are believed, and where the next window starts."""

import pytest

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.hallucinations import WindowPlace, believe, is_suspect, last_word_end, word_anomaly

LONG = WindowPlace(first=1000, frames=3000, file_frames=60_000)


def word(start: float = 0.0, duration: float = 0.3, probability: float = 0.9, text: str = " a") -> Word:
    return Word(start, start + duration, text, probability)


def segment(words: list[Word], start: float = 0.0, end: float = 0.0) -> Segment:
    if words:
        start, end = words[0].start, words[-1].end
    return Segment(0, 0, start, end, " a", [], -0.2, 1.0, 0.0, words, 0.0)


def real(start: float) -> Segment:
    return segment([word(start + i / 2) for i in range(4)])


def invented(start: float) -> Segment:
    return segment([word(start + i / 2, 0.02, 0.05) for i in range(3)])


def look(*segments: Segment, window=LONG, seek=None, silent=True, last_speech=0.0, threshold: float | None = 2.0):
    seek = window.first + window.frames if seek is None else seek
    return believe(segments, window, seek, ends_in_silence=silent, last_speech=last_speech, threshold=threshold)


def test_word_anomaly():
    assert word_anomaly(word()) == 0
    assert word_anomaly(word(probability=0.14)) == 1
    assert word_anomaly(word(duration=0.033)) == pytest.approx(1.5)
    assert word_anomaly(word(duration=3.5)) == pytest.approx(1.5)
    assert word_anomaly(word(duration=3.5, probability=0.1)) == pytest.approx(2.5)


def test_a_segment_is_suspect_when_its_words_are():
    bad = word(probability=0.1)
    assert is_suspect(segment([bad]))
    assert not is_suspect(segment([bad, word()]))
    assert is_suspect(segment([bad] * 3 + [word()] * 5)), "a score of 3 is too much however many words there are"
    assert not is_suspect(segment([word()] * 8 + [bad] * 9)), "only the first eight are judged"
    assert is_suspect(segment([bad, word(text="."), word(text=",")])), "marks are no words"
    assert not is_suspect(segment([]))
    assert not is_suspect(None)


def test_the_end_of_the_last_word():
    assert last_word_end([]) is None
    assert last_word_end([segment([], 1.0, 2.0)]) == 2.0
    assert last_word_end([real(10.0), segment([], 20.0, 22.0)]) == pytest.approx(11.8)


def test_the_next_window_starts_after_the_last_word():
    assert look(real(12.0), silent=False, threshold=None).seek == 1380
    assert look(real(12.0), silent=True, threshold=None).seek == 4000
    assert look(silent=False, threshold=None, seek=3000).seek == 3000
    assert look(real(37.0), silent=False).seek == 4000, "silence below the threshold is not looked at again"
    assert look(real(36.0), silent=False).seek == 3780


def test_a_window_never_starts_where_the_one_before_did():
    assert look(segment([word(10.0, 0.001)]), silent=False, threshold=None).seek > LONG.first
    assert look(segment([word(10.004, 0.02, 0.05)]), threshold=0.0).seek > LONG.first


def test_silence_before_an_invented_beginning_is_skipped():
    found = look(invented(15.0), real(20.0), last_speech=9.0)
    assert (found.segments, found.seek, found.last_speech) == ((), 1500, 9.0)
    assert len(look(invented(11.5), real(13.0)).segments) == 2, "too little silence to skip"


def test_an_invention_between_silences_goes_with_all_after_it():
    before, after = real(10.5), real(30.0)
    found = look(before, invented(20.0), after)
    assert (found.segments, found.seek, found.last_speech) == ((before,), 2000, before.end)


@pytest.mark.parametrize("next_start", [14.0, 20.0])
def test_an_invention_right_after_speech_stays(next_start):
    segments = (real(10.5), invented(12.5), real(next_start))
    assert look(*segments).segments == segments


def test_an_invention_right_before_speech_stays():
    segments = (real(10.5), invented(20.0), real(22.0))
    assert look(*segments).segments == segments


def test_real_words_between_silences_stay():
    segments = (real(10.5), real(20.0), real(30.0))
    assert look(*segments).segments == segments


def test_an_invention_at_the_end_of_the_file_ends_it():
    last = WindowPlace(first=1000, frames=1300, file_frames=2300)
    assert look(real(10.5), invented(20.0), window=last).seek == 2300


def test_without_a_threshold_all_is_believed():
    segments = (invented(15.0), invented(25.0))
    assert look(*segments, threshold=None).segments == segments
