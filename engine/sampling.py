"""Best-of sampling: several hypotheses of a window drawn by chance, each on its own. After openai-whisper's."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from tilewhisper.engine.search import Candidate, Hypotheses, Likeliest, Search, paired


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

    def candidates(self, logits: Tensor, windows: Sequence[Hypotheses], likeliest: Likeliest) -> list[list[Candidate]]:
        """One token a row, by where a number from 0 to 1 falls in the sums of the row's probabilities; all of a
        window's first tokens come from its one row."""
        draws = 1 if windows[0].live[0].tokens else self.size
        drawn = torch.tensor(
            [[one.chance.random() for _ in range(draws)] for one in windows for _ in one.live], dtype=torch.float64
        )
        sums = (logits / self.temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        tokens = torch.searchsorted(sums, drawn * sums[:, -1:], right=True).clamp_(max=logits.shape[-1] - 1)
        return paired(tokens, logits.gather(1, tokens) - logits.logsumexp(dim=-1, keepdim=True))

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
