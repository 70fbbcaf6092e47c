"""Against repetition: rules on the scores of a step that look at the tokens before it.

As transformers and CTranslate2 define them. Both change scores (batch, n_vocab) in place; `tokens` has each row's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def repetition_penalty(logits: Tensor, tokens: Sequence[Sequence[int]], penalty: float) -> None:
    """Make every token that was there less likely, once however often it was: positive scores are divided by the
    penalty, negative ones multiplied. 1 changes nothing, below 1 rewards repetition."""
    if penalty == 1:
        return
    for row, seen in zip(logits, tokens, strict=True):
        ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits.device)
        scores = row[ids]
        row[ids] = torch.where(scores < 0, scores * penalty, scores / penalty)


def no_repeat_ngram(logits: Tensor, tokens: Sequence[Sequence[int]], size: int) -> None:
    """Set to -inf the score of every token that would end a run of `size` tokens that was there. 0 changes nothing."""
    if size == 0:
        return
    for row, seen in zip(logits, tokens, strict=True):
        row[_ends_of_ngrams(seen, size)] = float("-inf")


def _ends_of_ngrams(tokens: Sequence[int], size: int) -> list[int]:
    """The tokens that came after the last `size - 1` when these were there before."""
    begun = list(tokens[len(tokens) - size + 1 :])
    if len(begun) < size - 1:
        return []
    ends = range(size - 1, len(tokens))
    return [tokens[end] for end in ends if list(tokens[end - size + 1 : end]) == begun]
