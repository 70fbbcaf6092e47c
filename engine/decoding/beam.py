"""Beam search, with the results of openai-whisper's; greedy decoding is the case of one beam."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search, TopK, pair_up


@dataclass(frozen=True)
class BeamSearch(Search):
    """Follow the `size` most probable hypotheses until `size * patience` have finished (arXiv 2204.05424)."""

    patience: float = 1.0

    @property
    def top(self) -> int:
        """One more than beams, since one candidate of a beam may be end-of-text; a single beam ends with it."""
        return 1 if self.size == 1 else self.size + 1

    @property
    def max_finished(self) -> int:
        return max(1, round(self.size * self.patience))

    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        largest, tokens, log_sum = top_k(logits, self.top)
        return pair_up(tokens, largest - log_sum)

    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        sums = [hypothesis.logprob for hypothesis in window.live]
        ranked = sorted(
            (
                (row, candidate)
                for row, offered in enumerate(candidates)
                for candidate in offered
                if isfinite(candidate.logprob)
            ),
            key=lambda pair: sums[pair[0]] + pair[1].logprob,
            reverse=True,
        )
        if not ranked:
            window.complete = True
            return []
        live, sources = [], []
        for row, candidate in ranked:
            if candidate.token != self.eot:
                live.append(window.live[row].extend(candidate))
                sources.append(row)
            elif len(window.finished) < self.max_finished:
                window.finished.append(window.live[row].end(candidate.logprob))
            if len(live) == self.size:
                break
        window.live = live
        window.complete = not live or len(window.finished) == self.max_finished
        return sources
