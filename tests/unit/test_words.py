"""Tokens to words, words to segments: what the rules cut, and what holds whatever they are given."""

import random
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest

from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION, Punctuation
from tilewhisper.engine.timestamps.words import split_words, with_words

EOT = 10_000
NOTHING_MERGED = Punctuation("", "")


class ByteTokenizer:
    """A vocabulary of what is asked for, as pieces of UTF-8 that may end in the middle of a character."""

    eot = EOT

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def tokens(self, *pieces: str | bytes) -> list[int]:
        first = len(self._pieces)
        self._pieces += [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        return list(range(first, len(self._pieces)))

    def decode(self, tokens) -> str:
        return b"".join(self._pieces[token] for token in tokens if token < EOT).decode("utf-8", "replace")


def split(*pieces: str | bytes, language: str = "en") -> list[str]:
    tokenizer = ByteTokenizer()
    return [piece.text for piece in split_words(tokenizer.tokens(*pieces), tokenizer, language)]


def test_words_begin_with_a_space_and_punctuation_stands_alone():
    assert split(" Hel", "lo", ",", " world", "'s", ".") == [" Hello", ",", " world's", "."]
    assert split("no", " space", "...") == ["no", " space..."]


def test_without_spaces_every_character_is_a_word():
    pieces = ("日", "本語", "。")
    assert split(*pieces, language="ja") == ["日", "本語", "。"]
    assert split(*pieces, language="en") == ["日本語。"]


def test_a_character_is_never_cut():
    first, second = "日".encode()[:2], "日".encode()[2:]
    assert split(first, second + b" x", "y", language="zh") == ["日 x", "y"]
    assert split(" a", first, second, language="en") == [" a日"]


def test_bytes_that_are_no_character_are_not_lost():
    assert "".join(split(b"\xe6", b"\x97", " a", language="zh")) == "\ufffd a"
    assert split(" a", b"\xe6", language="zh") == [" a", "\ufffd"]
    assert split() == []


def segment(tokenizer: ByteTokenizer, *pieces: str | bytes, start: float = 0.0, end: float = 30.0) -> Segment:
    tokens = tokenizer.tokens(*pieces)
    return Segment(0, 0, start, end, tokenizer.decode(tokens), [EOT + 1, *tokens, EOT + 9], 0, 1, 0, None, 0.0)


def timed(
    *pieces: tuple[str, float],
    start: float = 0.0,
    stamps: tuple[float, float] = (0.0, 30.0),
    last_speech: float = 0.0,
    punctuation: Punctuation = PUNCTUATION,
) -> Segment:
    """A segment of pieces and their durations, the first at `start`."""
    tokenizer = ByteTokenizer()
    one = segment(tokenizer, *(text for text, _ in pieces), start=stamps[0], end=stamps[1])
    times = [start]
    for _, duration in pieces:
        times.append(times[-1] + duration)
    sure = [0.5] * len(pieces)
    return with_words([one], times, sure, tokenizer, "en", last_speech=last_speech, punctuation=punctuation)[0]


def spans(one: Segment) -> list[tuple[str, float, float]]:
    return [(word.word, pytest.approx(word.start), pytest.approx(word.end)) for word in one.words]


def test_words_and_their_segment_have_the_same_times():
    found = timed((" one", 0.3), (" two", 0.3), start=0.5)
    assert spans(found) == [(" one", 0.5, 0.8), (" two", 0.8, 1.1)]
    assert (found.start, found.end) == (0.5, 1.1)


def test_times_are_of_the_file():
    tokenizer = ByteTokenizer()
    one = replace(segment(tokenizer, " one"), seek=1234)
    assert spans(with_words([one], [0.5, 0.9], [1.0], tokenizer, "en", last_speech=12.0)[0]) == [(" one", 12.84, 13.24)]


def test_probability_is_the_mean_of_the_tokens():
    tokenizer = ByteTokenizer()
    one = segment(tokenizer, " one", "s", " two", ".")
    words = with_words([one], [0, 1, 2, 3, 4], [0.2, 0.4, 0.7, 0.1], tokenizer, "en", last_speech=0.0)[0].words
    assert [word.probability for word in words] == pytest.approx([0.3, 0.7]), "a mark's does not count"


def test_punctuation_goes_with_its_word():
    pieces = ((" one", 0.3), (",", 0.1), (' "', 0.1), ("two", 0.3), ('"', 0.1), ("!", 0.1))
    assert spans(timed(*pieces)) == [(" one,", 0.0, 0.3), (' "two"!', 0.4, 0.8)]


def test_which_marks_are_merged_can_be_said():
    found = timed((" one", 0.3), (",", 0.1), (" two", 0.3), punctuation=NOTHING_MERGED)
    assert [word.word for word in found.words] == [" one", ",", " two"]


def test_the_pause_between_sentences_belongs_to_no_word():
    usual = ((" a", 0.3), (" b", 0.3), (" c", 0.3))
    after = timed(*usual, (".", 0.1), (" d", 4.0), (" e", 0.3))
    assert spans(after)[3] == (" d", 4.4, 5.0)
    mark = timed(*usual, (".", 4.0), (" d", 0.3), (" e", 0.3))
    assert spans(mark)[2:4] == [(" c.", 0.6, 0.9), (" d", 4.9, 5.2)]
    alone = timed(*usual, (".", 4.0), (" d", 0.3), (" e", 0.3), punctuation=NOTHING_MERGED)
    assert spans(alone)[3] == (".", 0.9, 1.5)
    elsewhere = timed(*usual, (" d", 4.0), (" e", 0.3))
    assert spans(elsewhere)[3] == (" d", 0.9, 4.9), "a long word inside a sentence may be one"


def test_the_first_words_after_a_pause_do_not_take_it_in():
    found = timed((" a", 5.0), (" b", 0.3), (" c", 0.3), (" d", 0.3))
    assert spans(found)[0] == (" a", 4.4, 5.0)
    both = timed((" a", 2.0), (" b", 3.0), (" c", 0.3), (" d", 0.3), (" e", 0.3))
    assert spans(both)[:2] == [(" a", 3.8, 4.4), (" b", 4.4, 5.0)]
    no_pause = timed((" a", 1.0), (" b", 0.3), (" c", 0.3), (" d", 0.3), last_speech=0.0)
    assert spans(no_pause)[0] == (" a", 0.0, 1.0)


def test_a_segments_timestamps_cut_its_first_and_last_word():
    found = timed((" a", 1.1), (" b", 0.3), (" c", 0.3), (" d", 0.3), (" e", 2.0), stamps=(0.7, 2.5))
    assert spans(found)[0] == (" a", 0.7, 1.1)
    assert spans(found)[-1] == (" e", 2.0, 2.5)
    assert (found.start, found.end) == (0.7, 2.5)


def test_no_rule_makes_a_word_longer():
    """Where openai-whisper's do, the word would run into its neighbour."""
    slow = ((" a", 0.8), (" b", 0.8), (" c", 0.8))
    assert spans(timed(*slow, (" d", 0.6), stamps=(0.0, 2.45)))[-1] == (" d", 2.4, 3.0)
    assert spans(timed((" d", 0.6), *slow, start=0.5, stamps=(1.05, 9.0)))[0] == (" d", 0.5, 1.1)
    quick = ((" b", 0.3), (" c", 0.3), (" d", 0.3))
    assert spans(timed((" a", 0.3), (".", 2.0), *quick, start=3.0))[:2] == [(" a.", 3.0, 3.3), (" b", 5.3, 5.6)]


def test_no_word_begins_before_the_last_one_of_the_window_before():
    found = timed((" a", 0.4), (" b", 0.3), (" c", 0.3), start=0.5, last_speech=0.755)
    assert spans(found)[:2] == [(" a", 0.755, 0.9), (" b", 0.9, 1.2)]


def test_a_segment_without_text_has_no_words():
    tokenizer = ByteTokenizer()
    blank = segment(tokenizer, start=1.0, end=2.0)
    assert with_words([blank], [0.0], [], tokenizer, "en", last_speech=0.0) == [replace(blank, words=[])]
    assert with_words([], [0.0], [], tokenizer, "en", last_speech=0.0) == []


PIECES = (
    " a",
    " word",
    "s",
    "ly",
    ",",
    ".",
    " “",
    "”",
    " -",
    "日",
    "本",
    "。",
    "é".encode()[:1],
    "é".encode()[1:],
    " ",
)


@pytest.mark.parametrize("seed", range(150))
def test_words_never_overlap_never_run_backwards_and_are_the_text(seed):
    random_ = random.Random(seed)
    tokenizer = ByteTokenizer()
    last_speech = 0.0
    for window in range(3):
        segments = []
        for _ in range(random_.randint(1, 4)):
            start, end = sorted(random_.uniform(0, 8) for _ in range(2))
            pieces = random_.choices(PIECES, k=random_.randint(0, 12))
            at = 30.0 * window
            segments.append(replace(segment(tokenizer, *pieces, start=at + start, end=at + end), seek=3000 * window))
        count = sum(len(one.tokens) - 2 for one in segments)
        steps = random_.choices([0.0, 0.02, 0.1, 0.3, 0.6, 0.8, 3.0], [1, 1, 3, 3, 3, 3, 1], k=count + 1)
        times = [min(30.0, time) for time in accumulate(steps)]
        language = random_.choice(["en", "ja"])
        probabilities = [random_.random() for _ in range(count)]
        done = with_words(segments, times, probabilities, tokenizer, language, last_speech=last_speech)
        assert ["".join(word.word for word in one.words) for one in done] == [one.text for one in segments]
        words = [word for one in done for word in one.words]
        edges = [last_speech, *(edge for word in words for edge in (word.start, word.end))]
        assert all(before <= after for before, after in pairwise(edges))
        assert all(0 <= word.probability <= 1 for word in words)
        spoken = [one for one in done if one.words]
        assert all(one.start <= one.end for one in spoken)
        assert all(before.end <= after.start for before, after in pairwise(spoken))
        last_speech = max([last_speech, *(word.end for word in words)])
