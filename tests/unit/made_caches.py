"""Self-attention caches in scattered pages, made from dense ones and read back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tilewhisper.kernels.decoder import PagedKV


def paged(dense: Tensor, lengths: Sequence[int], new: int | Sequence[int], page: int = 16) -> PagedKV:
    """Caches (layers, 2, rows, heads, tokens, head_dim) in two slabs, pages in no order; `new` tokens follow."""
    layers, _, rows, heads, _, head_dim = dense.shape
    more = [new] * rows if isinstance(new, int) else new
    counts = [-(-(length + fresh) // page) for length, fresh in zip(lengths, more, strict=True)]
    per_slab = -(-sum(counts) // 2) or 1
    numbers = iter(torch.randperm(2 * per_slab, generator=torch.Generator().manual_seed(1)).tolist())
    pages = [[next(numbers) for _ in range(count)] for count in counts]
    caches = PagedKV([torch.zeros(layers, 2, heads, per_slab, page, head_dim) for _ in range(2)], pages, list(lengths))
    for row, length in enumerate(lengths):
        for place in range(length):
            token(caches, row, place)[:] = dense[:, :, row, :, place]
    return caches


def token(caches: PagedKV, row: int, place: int) -> Tensor:
    """One token's keys and values in a row's pages: (layers, 2, heads, head_dim)."""
    per_slab, page = caches.slabs[0].shape[3:5]
    slab, number = divmod(caches.pages[row][place // page], per_slab)
    return caches.slabs[slab][:, :, :, number, place % page]


def dense(caches: PagedKV, row: int, tokens: int) -> Tensor:
    """A row's first `tokens` keys and values: (layers, 2, heads, tokens, head_dim)."""
    return torch.stack([token(caches, row, place) for place in range(tokens)], dim=3)
