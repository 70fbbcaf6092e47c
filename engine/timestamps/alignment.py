"""Token timestamps from cross-attention, by dynamic time warping.

The method is openai-whisper's. The alignment heads of the decoder attend to the audio of the next token. Their
attention weights, standardised over the tokens, median-filtered and averaged over the heads, measure how well each
token fits each position; the cheapest monotonic path through that matrix is the alignment.

A position is one encoder state, 20 ms. Knows neither the model nor the tokens' text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from tilewhisper.models.constants import POSITIONS_PER_SECOND

_FILTER_WIDTH = 7
# A network of compare-exchange steps that puts the median of 7 values at index 3; sorting takes 12 times as long.
_MEDIAN_OF_7 = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)
)  # fmt: skip


_SINK_POSITIONS = 5
"""Heads also attend to a window's first position, whatever is there: of 50 tokens of speech between music which the
path stretched over more than 1 s, 5 had their peak there."""


@dataclass(frozen=True)
class TokenTimes:
    """When the text tokens of a window are spoken, in seconds from its start."""

    starts: Sequence[float]
    """The start of each token, then the end of the text: (text tokens + 1,), non-decreasing. A token lasts until the
    next one starts, whatever silence or music lies between them."""
    peaks: Sequence[float]
    """Where the heads attend to each token most within that time: (text tokens,)."""


def token_times(attention_logits: Tensor, prompt_length: int) -> TokenTimes:
    """Align the text tokens of a window to its audio.

    `attention_logits` (heads, tokens, positions) are the alignment heads' attention logits, before the softmax, for the
    `prompt_length` tokens of the prompt (the last is no_timestamps), the text tokens, and end-of-text; padding
    positions after the audio are left out.
    """
    weights = attention_logits.float().softmax(dim=-1)
    heads = [_median_filter(_standardised(head)) for head in weights]
    # The decoder predicts the next token at each token, so the first text token's row is the prompt's last.
    text = slice(prompt_length - 1, -1)
    starts = path_starts(-torch.stack(heads).mean(dim=0)[text].numpy().astype(np.float64))
    peaks = _peaks(weights[:, text].mean(dim=0).numpy(), starts)
    return TokenTimes((starts / POSITIONS_PER_SECOND).tolist(), (peaks / POSITIONS_PER_SECOND).tolist())


def token_probabilities(logits: Tensor, text: list[int], eot: int) -> list[float]:
    """The probability of each text token among all text tokens, from its logits (text tokens, n_vocab)."""
    probabilities = logits[:, :eot].float().softmax(dim=-1)
    return [float(p) for p in probabilities.gather(1, torch.tensor(text)[:, None])[:, 0]]


def path_starts(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first column in each row of the cheapest path through `cost` (rows, columns), whose values are finite.

    The path goes from the first to the last corner in steps of one cell right, down, or diagonally.
    """
    total = _path_costs(cost)
    first = np.zeros(len(cost), dtype=np.int64)
    row, column = cost.shape
    while row:
        first[row - 1] = column - 1
        end = row + column
        both, down, right = total[end - 2, row - 1], total[end - 1, row - 1], total[end - 1, row]
        if right <= min(both, down):
            column -= 1
        elif down < both:
            row -= 1
        else:
            row, column = row - 1, column - 1
    return first


def _peaks(weights: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The position of each token's largest weight (tokens, positions) between its start and the next token's."""
    peaks = starts[:-1].copy()
    for token, (first, after) in enumerate(pairwise(starts.tolist())):
        begin = max(first, _SINK_POSITIONS)
        if begin < after:
            peaks[token] = begin + weights[token, begin:after].argmax()
    return peaks


def _path_costs(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cost of the cheapest path to each cell, at [row + column, row] with indices from 1; inf outside.

    Each antidiagonal depends only on the two before it, so numpy computes one antidiagonal at a time (448 x 1500:
    11 ms).
    """
    rows, columns = cost.shape
    step = np.full((rows + columns - 1, rows), np.inf)
    down, right = step.strides
    as_strided(step, cost.shape, (down + right, down))[:] = cost
    total = np.full((rows + columns + 1, rows + 1), np.inf)
    total[0, 0] = 0
    for end in range(2, rows + columns + 1):
        here = total[end, 1:]
        np.minimum(total[end - 2, :-1], total[end - 1, :-1], out=here)
        np.minimum(here, total[end - 1, 1:], out=here)
        here += step[end - 2]
    return total


def _standardised(weights: Tensor) -> Tensor:
    """(tokens, positions) with mean 0 and standard deviation 1 over the tokens; 0 where the deviation is 0."""
    centred = weights - weights.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0)


def _median_filter(x: Tensor) -> Tensor:
    """The running median of 7 along the positions of (tokens, positions), mirrored at the ends."""
    reach, length = _FILTER_WIDTH // 2, x.shape[-1]
    if length <= reach:
        return x
    padded = F.pad(x[None], (reach, reach), mode="reflect")[0]
    values = [padded[:, i : i + length] for i in range(_FILTER_WIDTH)]
    for low, high in _MEDIAN_OF_7:
        values[low], values[high] = torch.minimum(values[low], values[high]), torch.maximum(values[low], values[high])
    return values[reach]
