"""When each token was said: from cross-attention to times, by dynamic time warping.

The method is openai-whisper's. Some heads of the decoder look at the sound of the token that comes next. Their weights
over the audio, standardised over the tokens, freed of single peaks and averaged, say how well each token goes with each
position; the cheapest way through that matrix that goes back neither in the text nor in the audio is the alignment.

A position of the encoder's states is 20 ms. Knows neither the model nor what the tokens mean.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from tilewhisper.models.constants import POSITIONS_PER_SECOND

_FILTER_WIDTH = 7
# Exchanges that leave the median of 7 values in place 3, whatever their order: a sort takes 12 times as long.
_MEDIAN_OF_7 = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)
)  # fmt: skip


def token_times(scores: Tensor, prompt_length: int) -> NDArray[np.float64]:
    """When each text token begins, and last when the text ends, in seconds from the window's start: (text tokens + 1,).
    Never decreasing.

    scores (heads, tokens, positions): what the alignment heads' queries and keys give before the softmax, for the
    prompt's `prompt_length` tokens (no_timestamps the last of them), the text's, and end-of-text; only the positions
    that hold audio.
    """
    heads = [_median_filter(_standardised(head)) for head in scores.float().softmax(dim=-1)]
    # The output after a token is the next token: the rows of interest begin at the prompt's last.
    matrix = torch.stack(heads).mean(dim=0)[prompt_length - 1 : -1]
    return first_columns(-matrix.numpy().astype(np.float64)) / POSITIONS_PER_SECOND


def token_probabilities(logits: Tensor, text: list[int], eot: int) -> list[float]:
    """The probability of each text token among all text, from the logits (text tokens, n_vocab) that chose them."""
    probabilities = logits[:, :eot].float().softmax(dim=-1)
    return [float(p) for p in probabilities.gather(1, torch.tensor(text)[:, None])[:, 0]]


def first_columns(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first column in each row of the cheapest path through `cost` (rows, columns), all finite.

    The path goes from the first corner to the last by single steps right, down, or both.
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


def _path_costs(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """At [row + column, row], counted from 1, the cost of the cheapest path that ends there; inf outside.

    A diagonal depends on the two before it and on nothing in itself, so numpy does a diagonal at a time (448 x 1500:
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
    """(tokens, positions) with mean 0 and deviation 1 over the tokens; 0 where they do not deviate."""
    centred = weights - weights.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0)


def _median_filter(x: Tensor) -> Tensor:
    """Each value of (tokens, positions) as the median of the 7 around it, mirrored at the ends."""
    reach, length = _FILTER_WIDTH // 2, x.shape[-1]
    if length <= reach:
        return x
    padded = F.pad(x[None], (reach, reach), mode="reflect")[0]
    values = [padded[:, i : i + length] for i in range(_FILTER_WIDTH)]
    for low, high in _MEDIAN_OF_7:
        values[low], values[high] = torch.minimum(values[low], values[high]), torch.maximum(values[low], values[high])
    return values[reach]
