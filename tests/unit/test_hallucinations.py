"""The hallucination filter: which segments of a window remain, and where the next window starts."""

import pytest

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.hallucinations import (
    WindowPosition,
    filter_hallucinations,
    is_anomalous,
    last_word_end,
    word_anomaly_score,
)

LONG = WindowPosition(first=1000, frames=3000, file_frames=60_000)


def word(start: float = 0.0, duration: float = 0.3, probability: float = 0.9, text: str = " a") -> Word:
    return Word(start, start + duration, text, probability)


def segment(words: list[Word], start: float = 0.0, end: float = 0.0) -> Segment:
    if words:
        start, end = words[0].start, words[-1].end
    return Segment(0, 0, start, end, " a", [], -0.2, 1.0, 0.0, words, 0.0)


def real(start: float) -> Segment:
    return segment([word(start + i / 2) for i in range(4)])


def hallucinated(start: float) -> Segment:
    return segment([word(start + i / 2, 0.02, 0.05) for i in range(3)])


def apply(*segments: Segment, window=LONG, seek=None, silent=True, last_speech=0.0, threshold: float | None = 2.0):
    seek = window.first + window.frames if seek is None else seek
    return filter_hallucinations(
        segments, window, seek, ends_in_silence=silent, last_speech=last_speech, threshold=threshold
    )


def test_the_anomaly_score_of_a_word():
    assert word_anomaly_score(word()) == 0
    assert word_anomaly_score(word(probability=0.14)) == 1
    assert word_anomaly_score(word(duration=0.033)) == pytest.approx(1.5)
    assert word_anomaly_score(word(duration=3.5)) == pytest.approx(1.5)
    assert word_anomaly_score(word(duration=3.5, probability=0.1)) == pytest.approx(2.5)


def test_a_segment_is_anomalous_if_its_words_are():
    bad = word(probability=0.1)
    assert is_anomalous(segment([bad]))
    assert not is_anomalous(segment([bad, word()]))
    assert is_anomalous(segment([bad] * 3 + [word()] * 5)), "a score of 3 is anomalous for any number of words"
    assert not is_anomalous(segment([word()] * 8 + [bad] * 9)), "only the first eight words count"
    assert is_anomalous(segment([bad, word(text="."), word(text=",")])), "punctuation is not counted as words"
    assert not is_anomalous(segment([]))
    assert not is_anomalous(None)


def test_the_end_of_the_last_word():
    assert last_word_end([]) is None
    assert last_word_end([segment([], 1.0, 2.0)]) == 2.0
    assert last_word_end([real(10.0), segment([], 20.0, 22.0)]) == pytest.approx(11.8)


def test_the_next_window_starts_after_the_last_word():
    assert apply(real(12.0), silent=False, threshold=None).seek == 1380
    assert apply(real(12.0), silent=True, threshold=None).seek == 4000
    assert apply(silent=False, threshold=None, seek=3000).seek == 3000
    assert apply(real(37.0), silent=False).seek == 4000, "silence shorter than the threshold is skipped"
    assert apply(real(36.0), silent=False).seek == 3780


def test_a_window_never_starts_where_the_previous_window_did():
    assert apply(segment([word(10.0, 0.001)]), silent=False, threshold=None).seek > LONG.first
    assert apply(segment([word(10.004, 0.02, 0.05)]), threshold=0.0).seek > LONG.first


def test_silence_before_a_hallucinated_beginning_is_skipped():
    found = apply(hallucinated(15.0), real(20.0), last_speech=9.0)
    assert (found.segments, found.seek, found.last_speech) == ((), 1500, 9.0)
    assert len(apply(hallucinated(11.5), real(13.0)).segments) == 2, "too little silence to skip"


def test_a_hallucination_between_silences_is_removed_with_all_after_it():
    before, after = real(10.5), real(30.0)
    found = apply(before, hallucinated(20.0), after)
    assert (found.segments, found.seek, found.last_speech) == ((before,), 2000, before.end)


@pytest.mark.parametrize("next_start", [14.0, 20.0])
def test_an_anomalous_segment_right_after_speech_remains(next_start):
    segments = (real(10.5), hallucinated(12.5), real(next_start))
    assert apply(*segments).segments == segments


def test_an_anomalous_segment_right_before_speech_remains():
    segments = (real(10.5), hallucinated(20.0), real(22.0))
    assert apply(*segments).segments == segments


def test_real_words_between_silences_remain():
    segments = (real(10.5), real(20.0), real(30.0))
    assert apply(*segments).segments == segments


def test_a_hallucination_at_the_end_of_the_file_ends_the_transcription():
    last = WindowPosition(first=1000, frames=1300, file_frames=2300)
    assert apply(real(10.5), hallucinated(20.0), window=last).seek == 2300


def test_without_a_threshold_all_segments_remain():
    segments = (hallucinated(15.0), hallucinated(25.0))
    assert apply(*segments, threshold=None).segments == segments
