"""Best-of sampling: several hypotheses of a window, each sampled on its own, as in openai-whisper."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search, TopK, pair_up


@dataclass(frozen=True)
class Sampling(Search):
    """Sample `size` hypotheses from the logits / temperature; the best is chosen by log-probabilities at 1."""

    temperature: float
    seed: int

    @property
    def top(self) -> int:
        """Timestamp rule 3 compares the largest logit; errors of 1e-2 in the others do not show in a sample."""
        return 1

    def start(self, max_tokens: int) -> Hypotheses:
        window = super().start(max_tokens)
        window.random.seed(self.seed)
        return window

    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        """Sample one token a row from its cumulative distribution; a window's first tokens share its one row."""
        draws = [1 if hypothesis.tokens else self.size for window in windows for hypothesis in window.live]
        generators = [window.random for window in windows for _ in window.live]
        unused = [0.0] * (max(draws) - 1)
        numbers = [
            [*(random.random() for _ in range(n)), *unused[n - 1 :]]
            for random, n in zip(generators, draws, strict=True)
        ]
        sums = (logits / self.temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        drawn = torch.tensor(numbers, dtype=torch.float64) * sums[:, -1:]
        tokens = torch.searchsorted(sums, drawn, right=True).clamp_(max=logits.shape[-1] - 1)
        sampled = pair_up(tokens, logits.gather(1, tokens) - logits.logsumexp(dim=-1, keepdim=True))
        return [row[:n] for row, n in zip(sampled, draws, strict=True)]

    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        live, sources = [], []
        for row, (hypothesis, offered) in enumerate(zip(window.live, candidates, strict=True)):
            for candidate in offered:
                if not isfinite(candidate.logprob):  # every token is masked
                    window.finished.append(hypothesis)
                elif candidate.token == self.eot:
                    window.finished.append(hypothesis.end(candidate.logprob))
                else:
                    live.append(hypothesis.extend(candidate))
                    sources.append(row)
        window.live, window.complete = live, not live
        return sources
