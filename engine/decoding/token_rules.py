"""Which token may come next: Whisper's rules on the scores of a greedy or sampled step.

1. Suppressed tokens never come; at the first position neither a blank nor the end.
2. With timestamps: they come in pairs (end of a segment, start of the next), except one alone before the end; they
   never decrease, and a segment is never empty; the first token is a timestamp of at most `max_initial_timestamp`.
3. With timestamps: where all timestamps together are more probable than the likeliest text token, one must come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import TopK
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_NEVER = float("-inf")


@dataclass(frozen=True)
class TokenRules:
    """The rules of one decoding task. Token ids come from the tokenizer of the model at hand."""

    eot: int
    no_timestamps: int
    timestamp_begin: int
    suppress: tuple[int, ...]
    suppress_first: tuple[int, ...]
    timestamps: bool
    max_initial_timestamp_index: int | None

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        *,
        suppress: Sequence[int],
        suppress_first: Sequence[int],
        timestamps: bool,
        max_initial_timestamp_index: int | None,
    ) -> "TokenRules":
        return cls(
            eot=tokenizer.eot,
            no_timestamps=tokenizer.no_timestamps,
            timestamp_begin=tokenizer.timestamp_begin,
            suppress=tuple(suppress),
            suppress_first=tuple(suppress_first),
            timestamps=timestamps,
            max_initial_timestamp_index=max_initial_timestamp_index,
        )

    @cached_property
    def _suppressed(self) -> Tensor:
        never = (*self.suppress, self.no_timestamps) if self.timestamps else self.suppress
        return torch.tensor(never, dtype=torch.int64)

    def forbid(self, logits: Tensor, generated: Sequence[Sequence[int]]) -> None:
        """Rules 1 and 2, which do not look at scores (batch, n_vocab): set those of forbidden tokens to -inf, in place,
        given each row's tokens so far."""
        logits.index_fill_(1, self._suppressed, _NEVER)
        for row, tokens in zip(logits, generated, strict=True):
            if not tokens:
                row[list(self.suppress_first)] = _NEVER
            if self.timestamps:
                self._keep_order(row, tokens)

    def prefer_timestamps(self, logits: Tensor, top_k: TopK) -> None:
        """Rule 3, which compares scores (batch, n_vocab), where rules 1 and 2 have set theirs."""
        if not self.timestamps:
            return
        text, timestamps = logits[:, : self.timestamp_begin], logits[:, self.timestamp_begin :]
        _, _, all_timestamps = top_k(timestamps, 1)
        for row in (all_timestamps[:, 0] > text.amax(dim=1)).nonzero().flatten().tolist():
            text[row] = _NEVER

    def _keep_order(self, row: Tensor, tokens: Sequence[int]) -> None:
        begin = self.timestamp_begin
        if not tokens:
            row[:begin] = _NEVER
            if self.max_initial_timestamp_index is not None:
                row[begin + self.max_initial_timestamp_index + 1 :] = _NEVER
            return
        last = tokens[-1] >= begin
        before_last = len(tokens) < 2 or tokens[-2] >= begin
        if last and before_last:
            row[begin:] = _NEVER
        elif last:
            row[: self.eot] = _NEVER
        if stamps := [token for token in tokens if token >= begin]:
            opens_segment = last and not before_last
            row[begin : stamps[-1] + (0 if opens_segment else 1)] = _NEVER
