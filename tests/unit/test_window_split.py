"""Split windows into segments. Timestamp token 100 is 0.00 s; one step is 0.02 s, two frames."""

from tilewhisper.engine.pipeline.window_split import SegmentTokens, split_window

BEGIN = 100


def split(*tokens: int, frames: int = 3000, closed: bool = False):
    return split_window(tokens, BEGIN, frames, closed=closed)


def test_closed_segments_and_the_next_window_at_the_last_pair():
    cut = split(100, 1, 2, 150, 150, 3, 4, 400, 400, 5, 6)
    assert cut.segments == (SegmentTokens((100, 1, 2, 150), 0, 100), SegmentTokens((150, 3, 4, 400), 100, 600))
    assert cut.advance == 600


def test_a_gap_between_segments_belongs_to_neither():
    cut = split(100, 1, 150, 200, 2, 400, 400)
    assert [(part.start, part.end) for part in cut.segments] == [(0, 100), (200, 600)]
    assert cut.advance == 600


def test_a_single_timestamp_at_the_end_means_silence_to_the_end_of_the_window():
    cut = split(100, 1, 150, 150, 2, 400)
    assert cut.segments == (SegmentTokens((100, 1, 150), 0, 100), SegmentTokens((150, 2, 400), 100, 600))
    assert cut.advance == 3000 and cut.ends_in_silence


def test_one_segment_closed_by_the_end():
    cut = split(105, 1, 2, 400)
    assert cut.segments == (SegmentTokens((105, 1, 2, 400), 0, 600),)
    assert cut.advance == 3000


def test_text_after_the_last_pair_of_a_closed_window_ends_with_the_window():
    cut = split(100, 1, 150, 150, 2, 3, frames=2800, closed=True)
    assert [(part.start, part.end) for part in cut.segments] == [(0, 100), (100, 2800)]
    assert cut.advance == 2800 and cut.ends_in_silence
    ended_early = split(100, 1, 150, 150, frames=2800, closed=True)  # by a pair: there may be more after it
    assert ended_early.advance == 100


def test_text_without_an_end_timestamp_ends_with_the_audio():
    cut = split(100, 1, 2, frames=1100)
    assert cut.segments == (SegmentTokens((100, 1, 2), 0, 1100),)
    assert cut.advance == 1100


def test_tokens_without_timestamps_are_one_segment():
    cut = split(1, 2, 3, frames=500)
    assert cut.segments == (SegmentTokens((1, 2, 3), 0, 500),)


def test_an_empty_window_advances():
    assert split(frames=700).advance == 700


def test_the_next_window_starts_in_this_one_or_right_after_it():
    assert split(100, 1, 900, 900, 2, frames=500).advance == 500


def test_the_next_window_always_starts_later():
    assert split(100, 100, 1).advance > 0
