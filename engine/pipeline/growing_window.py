"""The window of a live transcription: where it begins, its final words, and the hypothesis of those after them."""

from dataclasses import replace

from tilewhisper.engine.pipeline.agreement import agreed
from tilewhisper.engine.pipeline.live_decoder import Hypothesis
from tilewhisper.engine.pipeline.live_events import Final
from tilewhisper.engine.results import Word
from tilewhisper.models.constants import SAMPLE_RATE

LEAST_AGE = 3.0
"""Seconds that a word must lie before the end of the audio to be final because two hypotheses agree on it."""
SURE_AGREED = 0.6
"""Least probability of such a word: an improbable one often changes once more of the sentence is known."""


class GrowingWindow:
    """A window from sample `first` of the stream on. Its words have times of the stream."""

    def __init__(self, first: int, earliest: float = 0.0) -> None:
        """`earliest` is the end of the last word before the window, in seconds."""
        self.first = self.decoded = first
        self.final: list[Word] = []
        self.tail: tuple[Word, ...] = ()
        """The last hypothesis after the final words."""
        self.language = "en"
        self._earliest = earliest

    def accept(self, hypothesis: Hypothesis, decoded: int) -> Final | None:
        """Take the hypothesis of the audio up to sample `decoded`; return the words that two hypotheses agree on."""
        before, self.tail = self.tail, self._placed(hypothesis.words)
        self.decoded, self.language = decoded, hypothesis.language
        old_enough = sum(word.end <= decoded / SAMPLE_RATE - LEAST_AGE for word in self.tail)
        return self.make_final(min(agreed(before, self.tail), old_enough, self.sure(SURE_AGREED)))

    def sure(self, probability: float) -> int:
        """How many words of the hypothesis there are before the first one that is less probable."""
        unsure = (number for number, word in enumerate(self.tail) if word.probability < probability)
        return next(unsure, len(self.tail))

    def make_final(self, count: int | None = None) -> Final | None:
        """Make the first `count` words of the hypothesis final, or all; None where it has none."""
        words = self.tail[:count]
        if not words:
            return None
        self.final += words
        self.tail = self.tail[len(words) :]
        self._earliest = words[-1].end
        return Final("".join(word.word for word in words), words, self.language)

    def _placed(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """The words with times of the stream, none of them before the final ones."""
        placed, earliest = [], self._earliest
        for word in words:
            start, end = (round(time + self.first / SAMPLE_RATE, 2) for time in (word.start, word.end))
            start = max(start, earliest)
            earliest = max(end, start)
            placed.append(replace(word, start=start, end=earliest))
        return tuple(placed)
