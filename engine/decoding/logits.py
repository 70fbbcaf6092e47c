"""Logits processors: which token may come next, by Whisper's rules and the options against repetition.

1. Suppressed tokens are masked; so are a blank and the end of text as a window's first token.
2. With timestamps: they come in pairs (end of a segment, start of the next), except for a single one before the end of
   text; they never decrease, and a segment is never empty; the first token is a timestamp of at most
   `max_initial_timestamp_index`.
3. With timestamps: where all timestamps together are more probable than the most probable text token, text is masked.
4. A token that would repeat an n-gram is masked, and tokens seen before are penalised, as in transformers and
   CTranslate2. Both are off by default.

Every function changes logits (rows, n_vocab) in place; `tokens` holds each row's tokens so far, without the prompt
and with the prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tilewhisper.engine.decoding.hypothesis import TopK
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_MASKED = float("-inf")


@dataclass(frozen=True, eq=False)
class LogitsProcessor:
    """The rules of one set of options. Compared by identity, so that rows that share one are processed together."""

    eot: int
    no_timestamps: int
    timestamp_begin: int
    suppress: tuple[int, ...]
    suppress_first: tuple[int, ...]
    timestamps: bool
    max_initial_timestamp_index: int | None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0

    @classmethod
    def create(
        cls,
        tokenizer: Tokenizer,
        *,
        suppress: Sequence[int],
        suppress_first: Sequence[int],
        timestamps: bool,
        max_initial_timestamp_index: int | None,
        repetition_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
    ) -> "LogitsProcessor":
        """The rules with the special tokens of the model's own tokenizer."""
        return cls(
            eot=tokenizer.eot,
            no_timestamps=tokenizer.no_timestamps,
            timestamp_begin=tokenizer.timestamp_begin,
            suppress=tuple(suppress),
            suppress_first=tuple(suppress_first),
            timestamps=timestamps,
            max_initial_timestamp_index=max_initial_timestamp_index,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
        )

    @cached_property
    def _suppressed(self) -> Tensor:
        ids = (*self.suppress, self.no_timestamps) if self.timestamps else self.suppress
        return torch.tensor(ids, dtype=torch.int64)

    def mask(self, logits: Tensor, tokens: Sequence[Sequence[int]]) -> None:
        """Set forbidden tokens to -inf: rules 1 and 2 and repeated n-grams, which need no comparison of logits."""
        logits.index_fill_(1, self._suppressed, _MASKED)
        for row, seen in zip(logits, tokens, strict=True):
            if not seen:
                row[list(self.suppress_first)] = _MASKED
            if self.timestamps:
                self._keep_timestamps_in_order(row, seen)
        mask_repeated_ngrams(logits, tokens, self.no_repeat_ngram_size)

    def penalise(self, logits: Tensor, tokens: Sequence[Sequence[int]]) -> None:
        """Apply the repetition penalty."""
        penalise_repetition(logits, tokens, self.repetition_penalty)

    def penalised_count(self, tokens: Sequence[Sequence[int]]) -> int:
        """How many logits of a row the penalty may push down, so that as many others move up."""
        return 0 if self.repetition_penalty == 1 else max(map(len, tokens))

    def prefer_timestamps(self, logits: Tensor, top_k: TopK) -> None:
        """Rule 3, after `mask` and `penalise`."""
        if not self.timestamps:
            return
        text, timestamps = logits[:, : self.timestamp_begin], logits[:, self.timestamp_begin :]
        _, _, all_timestamps = top_k(timestamps, 1)
        for row in (all_timestamps[:, 0] > text.amax(dim=1)).nonzero().flatten().tolist():
            text[row] = _MASKED

    def _keep_timestamps_in_order(self, row: Tensor, tokens: Sequence[int]) -> None:
        begin = self.timestamp_begin
        if not tokens:
            row[:begin] = _MASKED
            if self.max_initial_timestamp_index is not None:
                row[begin + self.max_initial_timestamp_index + 1 :] = _MASKED
            return
        last = tokens[-1] >= begin
        before_last = len(tokens) < 2 or tokens[-2] >= begin
        if last and before_last:
            row[begin:] = _MASKED
        elif last:
            row[: self.eot] = _MASKED
        if timestamps := [token for token in tokens if token >= begin]:
            opens_segment = last and not before_last
            row[begin : timestamps[-1] + (0 if opens_segment else 1)] = _MASKED


def penalise_repetition(logits: Tensor, tokens: Sequence[Sequence[int]], penalty: float) -> None:
    """Divide the positive logits of tokens seen before by the penalty and multiply the negative ones, once per token.

    1 changes nothing; below 1 rewards repetition.
    """
    if penalty == 1:
        return
    for row, seen in zip(logits, tokens, strict=True):
        ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits.device)
        values = row[ids]
        row[ids] = torch.where(values < 0, values * penalty, values / penalty)


def mask_repeated_ngrams(logits: Tensor, tokens: Sequence[Sequence[int]], size: int) -> None:
    """Set to -inf every token that would complete an n-gram of `size` tokens seen before. 0 changes nothing."""
    if size == 0:
        return
    for row, seen in zip(logits, tokens, strict=True):
        row[_ngram_completions(seen, size)] = _MASKED


def _ngram_completions(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that followed earlier occurrences of the last `size - 1` tokens."""
    begun = list(tokens[len(tokens) - size + 1 :])
    if len(begun) < size - 1:
        return []
    ends = range(size - 1, len(tokens))
    return [tokens[end] for end in ends if list(tokens[end - size + 1 : end]) == begun]
