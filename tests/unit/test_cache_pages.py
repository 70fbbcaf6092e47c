"""Self-attention caches in pages: what rows share, copy and give back, over base-like shapes and a real backend."""

from collections.abc import Sequence

import pytest
import torch

from tilewhisper.engine.decoding import pages
from tilewhisper.engine.decoding.decoder import CrossKV, DecoderState
from tilewhisper.engine.decoding.pages import PAGE_TOKENS, PagePool
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

LAYERS, HEADS, HEAD_DIM = 2, 3, 16
PAGE_BYTES = 4 * 2 * LAYERS * HEADS * PAGE_TOKENS * HEAD_DIM
WINDOW = CrossKV(())


@pytest.fixture
def pool(monkeypatch) -> PagePool:
    """A pool that allocates 4 pages at a time, and keeps 8."""
    monkeypatch.setattr(pages, "SLAB_BYTES", 4 * PAGE_BYTES)
    monkeypatch.setattr(pages, "SPARE_BYTES", 8 * PAGE_BYTES)
    return PagePool(LAYERS, HEADS, HEAD_DIM)


@pytest.fixture
def state(pool) -> DecoderState:
    return DecoderState(pool)


def append(state: DecoderState, counts: Sequence[int]) -> torch.Tensor:
    """Append `counts` tokens to the rows; the sum of what self-attention gives in each layer, row by row.

    Tokens of a row are numbered, so that a text always gives the same keys and values."""
    ends = [length + count for length, count in zip(state.lengths, counts, strict=True)]
    caches, attended = state.extend(ends), []
    for row, (length, end) in enumerate(zip(state.lengths, ends, strict=True)):
        qkv = torch.stack([numbers(row, place) for place in range(length, end)])[None]
        alone = caches.of_rows(slice(row, row + 1))
        attended.append(sum(TorchBackend().self_attention(qkv, alone, i, 0.5)[0, -1] for i in range(LAYERS)))
    state.lengths = ends
    return torch.stack(attended)


def numbers(row: int, place: int) -> torch.Tensor:
    """The query, key and value of a token that depend on its row and place."""
    return torch.randn(3 * HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(1000 * row + place))


def allocated(pool: PagePool) -> int:
    """Pages, with rows or without."""
    return pool.nbytes // PAGE_BYTES


def test_each_row_takes_memory_for_its_own_text(state, pool):
    state.add([WINDOW] * 9)
    append(state, [20 * PAGE_TOKENS, *[1] * 8])
    assert allocated(pool) == 28


def test_hypotheses_share_their_common_beginning(state, pool):
    state.add([WINDOW])
    append(state, [10 * PAGE_TOKENS])
    state.select([0] * 5)
    append(state, [1] * 5)
    assert allocated(pool) == 16  # 15 in fours, not 55


def test_rows_that_part_keep_their_own_tokens(state):
    """As much as rows that were never one, at each place of a page, to the bit."""
    for begun in (PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1):
        state.add([WINDOW])
        append(state, [begun])
        state.select([0, 0, 0])
        append(state, [1, 1, 1])
        state.select([2, 1, 2, 0])
        found = append(state, [1, 2, 1, 1])
        for row, (parent, more) in enumerate(((2, 1), (1, 2), (2, 1), (0, 1))):
            alone = DecoderState(PagePool(LAYERS, HEADS, HEAD_DIM))
            alone.add([WINDOW] * 4)
            tokens = [numbers(0, place) for place in range(begun)] + [numbers(parent, begun)]
            tokens += [numbers(row, begun + 1 + i) for i in range(more)]
            caches = alone.extend([len(tokens)] * 4).of_rows(slice(1))
            exact = sum(TorchBackend().self_attention(torch.stack(tokens)[None], caches, i, 0.5)[0, -1] for i in (0, 1))
            torch.testing.assert_close(found[row], exact, rtol=1e-5, atol=1e-6)
        state.select([])


def test_pages_of_rows_that_leave_serve_others_and_the_last_are_freed(state, pool):
    state.add([WINDOW] * 4)
    append(state, [4 * PAGE_TOKENS] * 4)
    state.select([1, 3])
    append(state, [4 * PAGE_TOKENS] * 2)
    assert allocated(pool) == 16
    state.select([])
    assert allocated(pool) == 8
    state.add([WINDOW] * 2)
    append(state, [4 * PAGE_TOKENS] * 2)
    assert allocated(pool) == 8


def test_a_page_is_free_only_when_its_last_row_has_left(state):
    state.add([WINDOW])
    append(state, [PAGE_TOKENS])
    state.select([0, 0, 0])
    state.select([1])
    state.add([WINDOW])
    (first,), (second,) = state.extend([PAGE_TOKENS, 1]).pages
    assert first != second


def test_the_torch_backend_reads_rows_in_any_slabs_and_of_any_lengths(state):
    """All rows in one call equal each row alone."""
    state.add([WINDOW] * 3)
    append(state, [3 * PAGE_TOKENS, 1, 5 * PAGE_TOKENS])
    caches = state.extend([length + 2 for length in state.lengths])
    qkv = torch.stack([torch.stack([numbers(row, 500), numbers(row, 501)]) for row in range(3)])
    together = TorchBackend().self_attention(qkv, caches, 0, 0.5)
    for row in range(3):
        alone = TorchBackend().self_attention(qkv[row : row + 1], caches.of_rows(slice(row, row + 1)), 0, 0.5)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)
