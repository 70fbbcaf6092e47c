"""Split segments where a pause was cut out of the audio between their words.

To the model, the speech before and after the cut is one. In the file the segment would last as long as the pause.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from math import inf

from tilewhisper.engine.results import Segment, Word
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


def crosses(segment: Segment, cuts: Sequence[float]) -> bool:
    """Whether a cut lies within the segment."""
    return any(segment.start < cut < segment.end for cut in cuts)


def split_at_cuts(segment: Segment, cuts: Sequence[float], tokenizer: Tokenizer) -> Iterator[Segment]:
    """The parts of a segment with words, each between two of the ascending `cuts` (seconds) and with words of its own.

    Timestamp tokens stay with the text they are next to.
    """
    words = segment.words or []
    edges = [-inf, *(cut for cut in cuts if segment.start < cut < segment.end), inf]

    def part_of(word: Word) -> int:
        return bisect.bisect_right(edges, (word.start + word.end) / 2) - 1

    parts = [(number, list(part)) for number, part in groupby(words, part_of)]
    texts = ["".join(word.word for word in part) for _, part in parts]
    for (number, part), text, tokens in zip(parts, texts, _partition(segment.tokens, texts, tokenizer), strict=True):
        start, end = max(segment.start, edges[number]), min(segment.end, edges[number + 1])
        yield replace(segment, start=start, end=end, text=text, tokens=tokens, words=part)


def _partition(tokens: Sequence[int], texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The tokens in parts that decode to these texts; the last part has the rest."""
    first = 0
    for text in texts[:-1]:
        ends = range(first + 1, len(tokens) + 1)
        after = next((end for end in ends if tokenizer.decode(tokens[first:end]) == text), len(tokens))
        yield list(tokens[first:after])
        first = after
    yield list(tokens[first:])
