"""Dynamic time warping, and token times from attention logits whose best path is known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.engine.timestamps import alignment
from tilewhisper.engine.timestamps.alignment import path_starts, token_probabilities, token_times

Path = list[tuple[int, int]]


def cheapest_by_enumeration(cost: np.ndarray, row: int = 0, column: int = 0) -> tuple[float, Path]:
    """The cost and the cells of the cheapest path from here to the last corner, by enumerating all paths."""
    rows, columns = cost.shape
    steps = [(row + 1, column), (row, column + 1), (row + 1, column + 1)]
    ways = [cheapest_by_enumeration(cost, r, c) for r, c in steps if r < rows and c < columns]
    rest, path = min(ways, default=(0.0, []))
    return cost[row, column] + rest, [(row, column), *path]


def test_an_obvious_path_is_found():
    cost = np.array(
        [
            [0, 0, 9, 9, 9, 9],
            [9, 9, 0, 0, 0, 9],
            [9, 9, 9, 9, 9, 0],
        ]
    )
    assert path_starts(cost).tolist() == [0, 2, 5]


@given(rows=st.integers(1, 5), columns=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_the_cheapest_path_is_found(rows, columns, seed):
    cost = np.random.default_rng(seed).normal(size=(rows, columns))
    _, path = cheapest_by_enumeration(cost)
    assert path_starts(cost).tolist() == [min(c for r, c in path if r == row) for row in range(rows)]


def test_the_median_of_seven_is_exact_for_every_order():
    """By the zero-one principle, testing the 128 patterns of zeros and ones proves it for all values."""
    patterns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=7)))
    assert torch.equal(alignment._median_filter(patterns)[:, 3], patterns.median(dim=1).values)


def test_the_ends_of_a_filtered_row_are_mirrored():
    row = torch.tensor([[5.0, 1.0, 2.0, 3.0, 4.0]])
    assert alignment._median_filter(row)[0, 0] == torch.tensor([3.0, 2, 1, 5, 1, 2, 3]).median()
    assert torch.equal(alignment._median_filter(row[:, :3]), row[:, :3]), "too short to mirror"


def logits_of(starts: list[int], positions: int, prompt: int = 3, heads: int = 2) -> torch.Tensor:
    """Logits of heads that attend to token i from position starts[i] on; the last of `starts` is end-of-text's."""
    logits = torch.zeros(heads, prompt + len(starts), positions)
    for token, (start, end) in enumerate(itertools.pairwise([*starts, positions])):
        logits[:, prompt - 1 + token, start:end] = 8.0
    return logits + 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))


def test_tokens_start_where_the_heads_attend():
    starts = [0, 25, 40, 100, 130]
    times = token_times(logits_of(starts, 150), prompt_length=3)
    assert times.starts == pytest.approx(np.array(starts) / 50, abs=0.021)


def test_a_peak_of_one_position_does_not_change_the_times():
    starts = [0, 50, 100]
    logits = logits_of(starts, 150)
    logits[:, 3, 20] = 12.0
    assert token_times(logits, prompt_length=3).starts == pytest.approx(np.array(starts) / 50, abs=0.021)


def test_positions_that_no_token_attends_to_do_not_change_the_times():
    logits = logits_of([0, 50, 100], 150)
    logits[:, :, 60:80] = -1e4
    assert token_times(logits, prompt_length=3).starts == pytest.approx([0.0, 1.0, 2.0], abs=0.021)


@given(seed=st.integers(0, 2**32 - 1), prompt=st.integers(1, 5), text=st.integers(1, 24), positions=st.integers(1, 90))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_times_from_noise_do_not_decrease(seed, prompt, text, positions):
    logits = torch.randn(3, prompt + text + 1, positions, generator=torch.Generator().manual_seed(seed))
    times = token_times(logits, prompt_length=prompt)
    assert (len(times.starts), len(times.peaks)) == (text + 1, text)
    assert times.starts[0] == 0
    assert (np.diff(times.starts) >= 0).all()
    assert times.starts[-1] < positions / 50
    assert all(
        start <= peak <= end for peak, (start, end) in zip(times.peaks, itertools.pairwise(times.starts), strict=True)
    )


def test_a_token_stretched_over_a_pause_peaks_where_the_heads_attend():
    starts = [0, 25, 100]
    logits = logits_of(starts, 150)
    logits[:, 2, 0] = logits[:, 2, 20] = 12.0  # the first position attracts every head
    logits[:, 3, 90] = 12.0
    assert token_times(logits, prompt_length=3).peaks == pytest.approx([0.4, 1.8], abs=0.021)


def test_probabilities_are_normalised_over_text_tokens():
    logits = torch.tensor([[0.0, 0.0, 50.0, 50.0], [3.0, 0.0, 0.0, 0.0]])
    assert token_probabilities(logits, [1, 0], eot=2) == pytest.approx([0.5, 1 / (1 + np.exp(-3))])


@pytest.mark.slow
def test_median_filter_and_path_equal_openai_whispers():
    theirs = pytest.importorskip("whisper.timing", exc_type=ImportError)
    x = torch.randn(4, 30, 200, generator=torch.Generator().manual_seed(1))
    filtered = torch.stack([alignment._median_filter(head) for head in x])
    assert torch.equal(filtered, theirs.median_filter(x, 7))
    cost = filtered.mean(dim=0)
    rows, columns = theirs.dtw(cost)
    assert path_starts(cost.double().numpy()).tolist() == columns[np.flatnonzero(np.diff(rows, prepend=-1))].tolist()
