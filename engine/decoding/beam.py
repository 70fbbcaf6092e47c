"""Beam search, of which greedy decoding is the case of one beam. After openai-whisper's, whose results it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search, TopK, paired


@dataclass(frozen=True)
class BeamSearch(Search):
    """Follow the `size` likeliest hypotheses until `size * patience` have finished (arXiv 2204.05424)."""

    patience: float = 1.0

    @property
    def keep(self) -> int:
        """One more than beams, since one of a beam's candidates may be the end; a single beam stops there."""
        return 1 if self.size == 1 else self.size + 1

    @property
    def wanted(self) -> int:
        """Finished hypotheses."""
        return max(1, round(self.size * self.patience))

    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        scores, tokens, total = top_k(logits, self.keep)
        return paired(tokens, scores - total)

    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        sums = [one.logprob for one in window.live]
        ranked = sorted(
            ((row, one) for row, offered in enumerate(candidates) for one in offered if isfinite(one.logprob)),
            key=lambda pair: sums[pair[0]] + pair[1].logprob,
            reverse=True,
        )
        if not ranked:
            window.enough = True
            return []
        live, sources = [], []
        for row, one in ranked:
            if one.token != self.eot:
                live.append(window.live[row].then(one))
                sources.append(row)
            elif len(window.finished) < self.wanted:
                window.finished.append(window.live[row].ended(one.logprob))
            if len(live) == self.size:
                break
        window.live = live
        window.enough = not live or len(window.finished) == self.wanted
        return sources
