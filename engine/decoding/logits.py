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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tilewhisper.kernels.decoder import DecoderBackend
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

Span = tuple[int, int]
"""Tokens from the first to before the last."""


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

    def mask(self, logits: Tensor, tokens: Sequence[Sequence[int]], backend: DecoderBackend) -> None:
        """Set forbidden tokens to -inf: rules 1 and 2 and repeated n-grams, which need no comparison of logits."""
        end = logits.shape[1]
        spans = [(row, *span) for row, seen in enumerate(tokens) for span in self._forbidden(seen, end)]
        backend.mask(logits, self._suppressed, spans)

    def penalise(self, logits: Tensor, tokens: Sequence[Sequence[int]]) -> None:
        """Apply the repetition penalty."""
        penalise_repetition(logits, tokens, self.repetition_penalty)

    def penalised_count(self, tokens: Sequence[Sequence[int]]) -> int:
        """How many logits of a row the penalty may push down, so that as many others move up."""
        return 0 if self.repetition_penalty == 1 else max(map(len, tokens))

    def prefer_timestamps(self, logits: Tensor, backend: DecoderBackend) -> None:
        """Rule 3, after `mask` and `penalise`."""
        if self.timestamps:
            backend.prefer_last_part(logits, self.timestamp_begin)

    def _forbidden(self, tokens: Sequence[int], end: int) -> Iterator[Span]:
        """What a row may not say next, besides the suppressed tokens, of a vocabulary of `end` tokens."""
        if not tokens:
            yield from map(_span_of, self.suppress_first)
        if self.timestamps:
            yield from self._out_of_order(tokens, end)
        if self.no_repeat_ngram_size:
            yield from map(_span_of, ngram_completions(tokens, self.no_repeat_ngram_size))

    def _out_of_order(self, tokens: Sequence[int], end: int) -> Iterator[Span]:
        begin = self.timestamp_begin
        if not tokens:
            yield 0, begin
            if self.max_initial_timestamp_index is not None:
                yield min(begin + self.max_initial_timestamp_index + 1, end), end
            return
        last = tokens[-1] >= begin
        before_last = len(tokens) < 2 or tokens[-2] >= begin
        if last and before_last:
            yield begin, end
        elif last:
            yield 0, self.eot
        if (latest := next((token for token in reversed(tokens) if token >= begin), None)) is not None:
            opens_segment = last and not before_last
            yield begin, latest + (0 if opens_segment else 1)


def _span_of(token: int) -> Span:
    return token, token + 1


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


def ngram_completions(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete an n-gram of `size` tokens seen before: those that followed earlier occurrences of
    the last `size - 1` tokens."""
    begun = list(tokens[len(tokens) - size + 1 :])
    if len(begun) < size - 1:
        return []
    ends = range(size - 1, len(tokens))
    return [tokens[end] for end in ends if list(tokens[end - size + 1 : end]) == begun]
