"""Segments split where a pause was cut out of the audio. A token below 50 is one letter of the text."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewhisper.engine.results import Segment, Word
from tilewhisper.engine.timestamps.cuts import crosses, split_at_cuts

TOKENIZER = SimpleNamespace(decode=lambda tokens: "".join(chr(ord("a") + token) for token in tokens if token < 50))


def segment(start: float, end: float, *words: tuple[float, float]) -> Segment:
    """One letter a word."""
    timed = [Word(*span, chr(ord("a") + number), 0.9) for number, span in enumerate(words)]
    tokens = [100, *range(len(words)), 200]
    return Segment(0, 0, start, end, "".join(word.word for word in timed), tokens, -0.1, 1.0, 0.0, timed, 0.0)


def split(*args, cuts: tuple[float, ...]):
    return [(part.start, part.end, part.text, part.tokens) for part in split_at_cuts(segment(*args), cuts, TOKENIZER)]


def test_each_side_of_a_cut_has_its_words():
    found = split(8.0, 14.0, (8.0, 10.5), (10.5, 11.2), (11.1, 13.0), cuts=(3.0, 11.0, 20.0))
    assert found == [(8.0, 11.0, "ab", [100, 0, 1]), (11.0, 14.0, "c", [2, 200])]


@pytest.mark.parametrize(
    ("words", "times"), [(((8.2, 9.0), (9.0, 10.9)), (8.2, 11.0)), (((11.2, 12.0),), (11.0, 11.6))]
)
def test_a_segment_whose_words_are_on_one_side_ends_at_the_cut(words, times):
    ((start, end, *_),) = split(8.2, 11.6, *words, cuts=(11.0,))
    assert (start, end) == times


def test_a_segment_may_cross_several_cuts_and_have_no_words_between_them():
    found = split(0.0, 9.0, (0.0, 1.0), (7.0, 8.0), (8.0, 9.0), cuts=(2.0, 4.0, 6.0))
    assert [(start, end, text) for start, end, text, _ in found] == [(0.0, 2.0, "a"), (6.0, 9.0, "bc")]


def test_words_outside_the_segment_belong_to_its_nearest_part():
    assert [part[:3] for part in split(4.0, 9.0, (0.0, 1.0), (9.5, 9.9), cuts=(2.0, 6.0))] == [
        (4.0, 6.0, "a"),
        (6.0, 9.0, "b"),
    ]


@pytest.mark.parametrize(("cut", "crossed"), [(1.0, False), (1.5, True), (2.0, False), (3.0, False)])
def test_which_segments_cross_a_cut(cut, crossed):
    assert crosses(segment(1.0, 2.0), (cut,)) is crossed


@given(
    edges=st.lists(st.floats(0, 30), min_size=2, max_size=20).map(sorted),
    cuts=st.lists(st.floats(0, 30), max_size=4).map(sorted),
)
def test_parts_have_all_words_and_tokens_in_order_and_none_crosses_a_cut(edges, cuts):
    whole = segment(edges[0], edges[-1], *pairwise(edges))
    parts = list(split_at_cuts(whole, cuts, TOKENIZER))
    assert [word for part in parts for word in part.words] == whole.words
    assert [token for part in parts for token in part.tokens] == whole.tokens
    assert "".join(part.text for part in parts) == whole.text
    assert not any(crosses(part, cuts) for part in parts)
    assert all(a.end <= b.start for a, b in pairwise(parts))
