"""Word timestamps: splitting tokens into words, the rules that shorten words, and invariants of all results."""

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.alignment import TokenTimes
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION, Punctuation
from tilewhisper.engine.timestamps.words import LONGEST_WORD, add_word_timestamps, split_words
from tilewhisper.models.constants import FRAMES_PER_WINDOW

EOT = 10_000
NOTHING_MERGED = Punctuation("", "")
USUAL = ((" a", 0.3), (" b", 0.3), (" c", 0.3))


class ByteTokenizer:
    """A vocabulary of the given pieces of UTF-8, which may end in the middle of a character."""

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


def test_words_start_with_a_space_and_punctuation_is_separate():
    assert split(" Hel", "lo", ",", " world", "'s", ".") == [" Hello", ",", " world's", "."]
    assert split("no", " space", "...") == ["no", " space..."]


def test_without_spaces_every_character_is_a_word():
    pieces = ("日", "本語", "。")
    assert split(*pieces, language="ja") == ["日", "本語", "。"]
    assert split(*pieces, language="en") == ["日本語。"]


def test_a_character_is_never_split():
    first, second = "日".encode()[:2], "日".encode()[2:]
    assert split(first, second + b" x", "y", language="zh") == ["日 x", "y"]
    assert split(" a", first, second, language="en") == [" a日"]


def test_bytes_of_incomplete_characters_are_kept():
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
    peaks: dict[int, float] | None = None,
    cuts: tuple[float, ...] = (),
) -> Segment:
    """A segment of pieces with these durations; the first starts at `start`."""
    tokenizer = ByteTokenizer()
    untimed = segment(tokenizer, *(text for text, _ in pieces), start=stamps[0], end=stamps[1])
    times = [start]
    for _, duration in pieces:
        times.append(times[-1] + duration)
    probabilities = [0.5] * len(pieces)
    return add_word_timestamps(
        [untimed],
        token_times(times, peaks),
        probabilities,
        tokenizer,
        "en",
        last_speech=last_speech,
        punctuation=punctuation,
        cuts=cuts,
    )[0]


def token_times(starts: list[float], peaks: dict[int, float] | None = None) -> TokenTimes:
    """Tokens whose peak is in the middle, or where `peaks` says."""
    middles = {token: (start + end) / 2 for token, (start, end) in enumerate(pairwise(starts))}
    return TokenTimes(starts, [*(middles | (peaks or {})).values()])


def spans(timed_segment: Segment) -> list[tuple[str, float, float]]:
    return [(word.word, pytest.approx(word.start), pytest.approx(word.end)) for word in timed_segment.words]


def test_words_and_their_segment_have_the_same_times():
    found = timed((" one", 0.3), (" two", 0.3), start=0.5)
    assert spans(found) == [(" one", 0.5, 0.8), (" two", 0.8, 1.1)]
    assert (found.start, found.end) == (0.5, 1.1)


def test_times_are_relative_to_the_file():
    tokenizer = ByteTokenizer()
    untimed = replace(segment(tokenizer, " one"), seek=1234)
    found = add_word_timestamps([untimed], token_times([0.5, 0.9]), [1.0], tokenizer, "en", last_speech=12.0)
    assert spans(found[0]) == [(" one", 12.84, 13.24)]


def test_probability_is_the_mean_of_the_tokens():
    tokenizer = ByteTokenizer()
    untimed = segment(tokenizer, " one", "s", " two", ".")
    found = add_word_timestamps(
        [untimed], token_times([0, 1, 2, 3, 4]), [0.2, 0.4, 0.7, 0.1], tokenizer, "en", last_speech=0.0
    )
    assert [word.probability for word in found[0].words] == pytest.approx([0.3, 0.7]), "punctuation does not count"


def test_punctuation_is_merged_with_its_word():
    pieces = ((" one", 0.3), (",", 0.1), (' "', 0.1), ("two", 0.3), ('"', 0.1), ("!", 0.1))
    assert spans(timed(*pieces)) == [(" one,", 0.0, 0.3), (' "two"!', 0.4, 0.8)]


def test_the_merged_punctuation_is_configurable():
    found = timed((" one", 0.3), (",", 0.1), (" two", 0.3), punctuation=NOTHING_MERGED)
    assert [word.word for word in found.words] == [" one", ",", " two"]


def test_the_pause_between_sentences_belongs_to_no_word():
    after = timed(*USUAL, (".", 0.1), (" d", 1.4), (" e", 0.3))
    assert spans(after)[3] == (" d", 1.8, 2.4)
    mark = timed(*USUAL, (".", 1.4), (" d", 0.3), (" e", 0.3))
    assert spans(mark)[2:4] == [(" c.", 0.6, 0.9), (" d", 2.3, 2.6)]
    alone = timed(*USUAL, (".", 1.4), (" d", 0.3), (" e", 0.3), punctuation=NOTHING_MERGED)
    assert spans(alone)[3] == (".", 0.9, 1.5)
    elsewhere = timed(*USUAL, (" d", 1.4), (" e", 0.3))
    assert spans(elsewhere)[3] == (" d", 0.9, 2.3), "a long word inside a sentence may be spoken slowly"


@pytest.mark.parametrize(("peak", "span"), [(1.0, (0.9, 1.5)), (3.0, (2.7, 3.3)), (4.9, (4.3, 4.9))])
def test_a_word_too_long_to_be_spoken_is_where_the_model_attends_to_it(peak, span):
    assert spans(timed(*USUAL, (" d", 4.0), (" e", 0.3), peaks={3: peak}))[3] == (" d", *span)


def test_of_a_word_of_several_tokens_the_longest_says_where_it_is():
    pieces = (*USUAL, (" d", 4.0), ("ee", 0.2), (" e", 0.3))
    assert spans(timed(*pieces, peaks={3: 4.8, 4: 5.0}))[3] == (" dee", 4.5, 5.1)


@pytest.mark.parametrize(("peak", "span"), [(1.0, (0.9, 1.5)), (1.9, (1.5, 2.1))])
def test_a_word_across_a_cut_lies_on_the_side_of_its_peak(peak, span):
    assert spans(timed(*USUAL, (" d", 1.2), (" e", 0.3), peaks={3: peak}, cuts=(1.5,)))[3] == (" d", *span)


def test_the_first_words_after_a_pause_are_shortened():
    found = timed((" a", 1.4), (" b", 0.3), (" c", 0.3), (" d", 0.3))
    assert spans(found)[0] == (" a", 0.8, 1.4)
    both = timed((" a", 1.3), (" b", 1.4), (" c", 0.3), (" d", 0.3), (" e", 0.3))
    assert spans(both)[:2] == [(" a", 1.5, 2.1), (" b", 2.1, 2.7)]
    no_pause = timed((" a", 1.0), (" b", 0.3), (" c", 0.3), (" d", 0.3), last_speech=0.0)
    assert spans(no_pause)[0] == (" a", 0.0, 1.0)


def test_a_segments_timestamps_shorten_its_first_and_last_word():
    found = timed((" a", 1.1), (" b", 0.3), (" c", 0.3), (" d", 0.3), (" e", 1.4), stamps=(0.7, 2.5))
    assert spans(found)[0] == (" a", 0.7, 1.1)
    assert spans(found)[-1] == (" e", 2.0, 2.5)
    assert (found.start, found.end) == (0.7, 2.5)
    longer = timed(*USUAL, (" d", 3.0), stamps=(0.0, 1.2), peaks={3: 3.5})
    assert spans(longer)[-1] == (" d", 0.9, 1.2), "the timestamps go before the bound"


def test_no_rule_makes_a_word_longer():
    """Where openai-whisper's rules do, the word would overlap its neighbour."""
    slow = ((" a", 0.8), (" b", 0.8), (" c", 0.8))
    assert spans(timed(*slow, (" d", 0.6), stamps=(0.0, 2.45)))[-1] == (" d", 2.4, 3.0)
    assert spans(timed((" d", 0.6), *slow, start=0.5, stamps=(1.05, 9.0)))[0] == (" d", 0.5, 1.1)
    quick = ((" b", 0.3), (" c", 0.3), (" d", 0.3))
    assert spans(timed((" a", 0.3), (".", 2.0), *quick, start=3.0))[:2] == [(" a.", 3.0, 3.3), (" b", 5.3, 5.6)]


def test_no_word_starts_before_the_end_of_the_previous_window_words():
    found = timed((" a", 0.4), (" b", 0.3), (" c", 0.3), start=0.5, last_speech=0.755)
    assert spans(found)[:2] == [(" a", 0.755, 0.9), (" b", 0.9, 1.2)]


def test_a_segment_without_text_has_no_words():
    tokenizer = ByteTokenizer()
    blank = segment(tokenizer, start=1.0, end=2.0)
    assert add_word_timestamps([blank], token_times([0.0]), [], tokenizer, "en", last_speech=0.0) == [
        replace(blank, words=[])
    ]
    assert add_word_timestamps([], token_times([0.0]), [], tokenizer, "en", last_speech=0.0) == []


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
    "日".encode()[:1],
    "日".encode()[1:2],
    "日".encode()[2:],
    " ",
)
STEPS = (0.0, 0.02, 0.1, 0.3, 0.6, 0.8, 3.0)


@given(pieces=st.lists(st.sampled_from(PIECES)), language=st.sampled_from(["en", "ja"]))
@settings(deadline=None, derandomize=True)
def test_splitting_keeps_all_tokens_and_all_text(pieces, language):
    tokenizer = ByteTokenizer()
    tokens = tokenizer.tokens(*pieces)
    words = split_words(tokens, tokenizer, language)
    assert [token for word in words for token in word.tokens] == tokens
    assert "".join(word.text for word in words) == tokenizer.decode(tokens)


@dataclass(frozen=True)
class RandomSegment:
    pieces: list[str | bytes]
    stamps: tuple[float, float]


TIMES = st.floats(0, 8)
SEGMENTS = st.builds(
    RandomSegment,
    pieces=st.lists(st.sampled_from(PIECES), max_size=12),
    stamps=st.tuples(TIMES, TIMES).map(lambda stamps: tuple(sorted(stamps))),
)


@given(
    windows=st.lists(st.lists(SEGMENTS, min_size=1, max_size=4), min_size=1, max_size=3),
    language=st.sampled_from(["en", "ja"]),
    data=st.data(),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_words_are_in_order_without_overlap_and_concatenate_to_the_text(windows, language, data):
    tokenizer = ByteTokenizer()
    last_speech = 0.0
    for number, window in enumerate(windows):
        start = 30.0 * number
        segments = [
            replace(
                segment(tokenizer, *each.pieces, start=start + each.stamps[0], end=start + each.stamps[1]),
                seek=FRAMES_PER_WINDOW * number,
            )
            for each in window
        ]
        count = sum(len(each.pieces) for each in window)
        steps = data.draw(st.lists(st.sampled_from(STEPS), min_size=count + 1, max_size=count + 1))
        probabilities = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
        times = [min(30.0, time) for time in accumulate(steps)]
        peaks = {token: data.draw(st.floats(*span)) for token, span in enumerate(pairwise(times))}
        found = add_word_timestamps(
            segments, token_times(times, peaks), probabilities, tokenizer, language, last_speech=last_speech
        )
        assert ["".join(word.word for word in each.words) for each in found] == [each.text for each in segments]
        words = [word for each in found for word in each.words]
        edges = [last_speech, *(edge for word in words for edge in (word.start, word.end))]
        assert edges == sorted(edges)
        assert all(word.end - word.start <= LONGEST_WORD + 0.01 for word in words)
        assert all(0 <= word.probability <= 1 for word in words)
        with_words = [each for each in found if each.words]
        assert all((each.start, each.end) == (each.words[0].start, each.words[-1].end) for each in with_words)
        assert all(before.end <= after.start for before, after in pairwise(with_words))
        last_speech = max([last_speech, *(word.end for word in words)])
