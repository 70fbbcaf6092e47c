"""Dynamic time warping, and times of tokens from scores whose best path is known."""

import itertools

import numpy as np
import pytest
import torch

from tilewhisper.engine.timestamps import alignment
from tilewhisper.engine.timestamps.alignment import first_columns, token_probabilities, token_times

Path = list[tuple[int, int]]


def cheapest_by_trying_all(cost: np.ndarray, row: int = 0, column: int = 0) -> tuple[float, Path]:
    """Every path from here to the last corner, one by one; the cheapest one's cost and cells."""
    rows, columns = cost.shape
    steps = [(row + 1, column), (row, column + 1), (row + 1, column + 1)]
    ways = [cheapest_by_trying_all(cost, r, c) for r, c in steps if r < rows and c < columns]
    rest, path = min(ways, default=(0.0, []))
    return cost[row, column] + rest, [(row, column), *path]


def test_a_path_that_can_be_seen():
    cost = np.array(
        [
            [0, 0, 9, 9, 9, 9],
            [9, 9, 0, 0, 0, 9],
            [9, 9, 9, 9, 9, 0],
        ]
    )
    assert first_columns(cost).tolist() == [0, 2, 5]


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (3, 3), (5, 2), (2, 6), (4, 6)])
def test_the_cheapest_path_is_found(shape):
    random = np.random.default_rng(shape)
    for _ in range(5):
        cost = random.normal(size=shape)
        _, path = cheapest_by_trying_all(cost)
        assert first_columns(cost).tolist() == [min(c for r, c in path if r == row) for row in range(shape[0])]


def test_the_median_of_seven_is_the_median_whatever_the_order():
    """By the zero-one principle 128 patterns of zeros and ones stand for all values."""
    patterns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=7)))
    assert torch.equal(alignment._median_filter(patterns)[:, 3], patterns.median(dim=1).values)


def test_the_ends_of_a_filtered_row_are_mirrored():
    row = torch.tensor([[5.0, 1.0, 2.0, 3.0, 4.0]])
    assert alignment._median_filter(row)[0, 0] == torch.tensor([3.0, 2, 1, 5, 1, 2, 3]).median()
    assert torch.equal(alignment._median_filter(row[:, :3]), row[:, :3]), "too short to mirror"


def scores_of(starts: list[int], positions: int, prompt: int = 3, heads: int = 2) -> torch.Tensor:
    """Heads that look at the sound of token i from starts[i] on; the last of `starts` is end-of-text's."""
    scores = torch.zeros(heads, prompt + len(starts), positions)
    for token, (start, end) in enumerate(itertools.pairwise([*starts, positions])):
        scores[:, prompt - 1 + token, start:end] = 8.0
    return scores + 0.01 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))


def test_tokens_begin_where_the_heads_look():
    starts = [0, 25, 40, 100, 130]
    assert token_times(scores_of(starts, 150), prompt_length=3) == pytest.approx(np.array(starts) / 50, abs=0.021)


def test_a_peak_of_one_position_moves_nothing():
    starts = [0, 50, 100]
    scores = scores_of(starts, 150)
    scores[:, 3, 20] = 12.0
    assert token_times(scores, prompt_length=3) == pytest.approx(np.array(starts) / 50, abs=0.021)


def test_positions_no_token_looks_at_are_no_trouble():
    scores = scores_of([0, 50, 100], 150)
    scores[:, :, 60:80] = -1e4
    assert token_times(scores, prompt_length=3) == pytest.approx([0.0, 1.0, 2.0], abs=0.021)


def test_times_of_noise_do_not_run_backwards():
    for seed in range(5):
        scores = torch.randn(3, 24, 80, generator=torch.Generator().manual_seed(seed))
        times = token_times(scores, prompt_length=4)
        assert len(times) == 20
        assert times[0] == 0
        assert (np.diff(times) >= 0).all()
        assert times[-1] < 80 / 50


def test_probabilities_are_among_text_alone():
    logits = torch.tensor([[0.0, 0.0, 50.0, 50.0], [3.0, 0.0, 0.0, 0.0]])
    assert token_probabilities(logits, [1, 0], eot=2) == pytest.approx([0.5, 1 / (1 + np.exp(-3))])


def test_as_openai_whisper_does():
    theirs = pytest.importorskip("whisper.timing", exc_type=ImportError)
    x = torch.randn(4, 30, 200, generator=torch.Generator().manual_seed(1))
    filtered = torch.stack([alignment._median_filter(head) for head in x])
    assert torch.equal(filtered, theirs.median_filter(x, 7))
    cost = filtered.mean(dim=0)
    rows, columns = theirs.dtw(cost)
    assert first_columns(cost.double().numpy()).tolist() == columns[np.flatnonzero(np.diff(rows, prepend=-1))].tolist()
