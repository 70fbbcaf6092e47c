"""Hypotheses of a window's text, and the base class of the searches that extend them.

A search follows several hypotheses of each window at once, one batch row each. A step offers candidate tokens (on
tensors, all windows together) and then advances window by window (on plain numbers).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from torch import Tensor

TopK = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""Logits (rows, n) -> the largest few of each row, their indices, and log(sum(exp)); see `DecoderBackend.top_k`."""


class Candidate(NamedTuple):
    """A token that may come next."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Hypothesis:
    """One possible text of a window."""

    tokens: tuple[int, ...] = ()
    """Without end-of-text."""
    logprobs: tuple[float, ...] = ()
    """Of each token, and of end-of-text if the hypothesis has ended."""

    @property
    def logprob(self) -> float:
        return sum(self.logprobs)

    def extend(self, candidate: Candidate) -> "Hypothesis":
        return Hypothesis((*self.tokens, candidate.token), (*self.logprobs, candidate.logprob))

    def end(self, logprob: float) -> "Hypothesis":
        return Hypothesis(self.tokens, (*self.logprobs, logprob))


@dataclass
class Hypotheses:
    """The hypotheses of one window. All start from one empty hypothesis."""

    tokens_left: int
    """How many tokens may still be decoded."""
    live: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    finished: list[Hypothesis] = field(default_factory=list)
    complete: bool = False
    """Whether the search has ended before `tokens_left` ran out."""
    random: Random = field(default_factory=Random)
    """The window's own random numbers: other rows of the batch do not disturb them."""


@dataclass(frozen=True)
class Search(ABC):
    """One decoding strategy."""

    eot: int
    size: int
    """Hypotheses per window."""
    length_penalty: float

    @property
    @abstractmethod
    def top(self) -> int:
        """How many of a row's largest logits must be exact."""

    def start(self, max_tokens: int) -> Hypotheses:
        return Hypotheses(max_tokens)

    @abstractmethod
    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        """Candidates for each live hypothesis of the windows, from its logits (rows, n_vocab)."""

    @abstractmethod
    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        """Extend the window's hypotheses by one token; return, for each now live, the index of the one it extends."""

    def best(self, window: Hypotheses) -> Hypothesis:
        """The most probable hypothesis for its length; unfinished ones fill up to `size`."""
        unfinished = sorted(window.live, key=lambda hypothesis: hypothesis.logprob, reverse=True)
        return max(window.finished + unfinished[: max(0, self.size - len(window.finished))], key=self._rank)

    def _rank(self, hypothesis: Hypothesis) -> float:
        length = max(1, len(hypothesis.tokens))
        return hypothesis.logprob / math.pow(length, self.length_penalty)


def pair_up(tokens: Tensor, logprobs: Tensor) -> list[list[Candidate]]:
    """Tokens (rows, n) and their log-probabilities (rows, n) as candidates."""
    rows = zip(tokens.tolist(), logprobs.tolist(), strict=True)
    return [[Candidate(*pair) for pair in zip(*row, strict=True)] for row in rows]
