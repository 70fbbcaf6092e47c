"""What all searches for a window's tokens share: hypotheses, and which of them is the best.

A search follows some hypotheses of each window at once, one row of the decoder's batch each. It offers the scores of a
step as candidates (on tensors, all windows together) and advances window by window (on plain numbers).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from torch import Tensor

TopK = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""Scores (rows, n) -> the largest few of each row, which they are, and log(sum of e^score); see `DecoderBackend`."""


class Candidate(NamedTuple):
    """A token that may come next."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Hypothesis:
    """What a window may say."""

    tokens: tuple[int, ...] = ()
    """Without end-of-text."""
    logprobs: tuple[float, ...] = ()
    """Of each token, and of end-of-text where it came."""

    @property
    def logprob(self) -> float:
        return sum(self.logprobs)

    def then(self, candidate: Candidate) -> "Hypothesis":
        return Hypothesis((*self.tokens, candidate.token), (*self.logprobs, candidate.logprob))

    def ended(self, logprob: float) -> "Hypothesis":
        return Hypothesis(self.tokens, (*self.logprobs, logprob))


@dataclass
class Hypotheses:
    """One window's. All begin as one, which has said nothing."""

    room: int
    """How many tokens may still come."""
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    finished: list[Hypothesis] = field(default_factory=list)
    enough: bool = False
    """Whether the search is over before the room is."""
    chance: Random = field(default_factory=Random)
    """The window's own chance: what else is in the batch does not disturb it."""


@dataclass(frozen=True)
class Search(ABC):
    """One way to search."""

    eot: int
    size: int
    """Hypotheses a window."""
    length_penalty: float

    @property
    @abstractmethod
    def keep(self) -> int:
        """How many of a row's likeliest tokens must have exact scores."""

    def start(self, room: int) -> Hypotheses:
        return Hypotheses(room)

    @abstractmethod
    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        """What may follow each live hypothesis of the windows, by its scores (rows, n_vocab)."""

    @abstractmethod
    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        """One token on, given each live hypothesis's candidates: which of them each that is live now continues."""

    def best(self, window: Hypotheses) -> Hypothesis:
        """The likeliest for its length; those that are not finished make up the number."""
        unfinished = sorted(window.live, key=lambda one: one.logprob, reverse=True)
        return max(window.finished + unfinished[: max(0, self.size - len(window.finished))], key=self._rank)

    def _rank(self, hypothesis: Hypothesis) -> float:
        length = max(1, len(hypothesis.tokens))
        return hypothesis.logprob / math.pow(length, self.length_penalty)


def paired(tokens: Tensor, logprobs: Tensor) -> list[list[Candidate]]:
    """Tokens (rows, n) and their log-probabilities (rows, n) as candidates."""
    rows = zip(tokens.tolist(), logprobs.tolist(), strict=True)
    return [[Candidate(*pair) for pair in zip(*row, strict=True)] for row in rows]
