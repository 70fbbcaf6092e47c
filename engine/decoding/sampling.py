"""Best-of sampling: several hypotheses of a window drawn by chance, each on its own. After openai-whisper's."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search, TopK, paired


@dataclass(frozen=True)
class Sampling(Search):
    """Draw `size` hypotheses from the scores / temperature; they are compared by what they are at temperature 1."""

    temperature: float
    seed: int

    @property
    def keep(self) -> int:
        """Rule 3 of the tokens compares the likeliest; errors of 1e-2 in the other scores do not show in a draw."""
        return 1

    def start(self, room: int) -> Hypotheses:
        window = super().start(room)
        window.chance.seed(self.seed)
        return window

    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], top_k: TopK) -> list[list[Candidate]]:
        """One token a row, by where a number from 0 to 1 falls in the sums of the row's probabilities; all of a
        window's first tokens come from its one row."""
        draws = [1 if one.live[0].tokens else self.size for one in windows for _ in one.live]
        chances = [one.chance for one in windows for _ in one.live]
        unused = [0.0] * (max(draws) - 1)
        numbers = [
            [*(chance.random() for _ in range(n)), *unused[n - 1 :]] for chance, n in zip(chances, draws, strict=True)
        ]
        sums = (logits / self.temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        drawn = torch.tensor(numbers, dtype=torch.float64) * sums[:, -1:]
        tokens = torch.searchsorted(sums, drawn, right=True).clamp_(max=logits.shape[-1] - 1)
        found = paired(tokens, logits.gather(1, tokens) - logits.logsumexp(dim=-1, keepdim=True))
        return [row[:n] for row, n in zip(found, draws, strict=True)]

    def advance(self, window: Hypotheses, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        live, sources = [], []
        for row, (hypothesis, offered) in enumerate(zip(window.live, candidates, strict=True)):
            for one in offered:
                if not isfinite(one.logprob):  # nothing may come
                    window.finished.append(hypothesis)
                elif one.token == self.eot:
                    window.finished.append(hypothesis.ended(one.logprob))
                else:
                    live.append(hypothesis.then(one))
                    sources.append(row)
        window.live, window.enough = live, not live
        return sources
