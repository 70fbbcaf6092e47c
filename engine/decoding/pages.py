"""Memory for self-attention caches in pages of a few tokens, which the rows of a batch take, share and give back."""

import math
import mmap
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

import torch
from torch import Tensor

PAGE_TOKENS = 8
"""The last page of a row is half empty on average: 4 tokens of base take 0.1 MB. With 16, the pages of 8 windows
of base (5 beams) took 43 MB instead of 29."""
SLAB_BYTES = 4 << 20
"""Pages are allocated together, at least one at a time."""
SPARE_BYTES = 16 << 20
"""Pages without rows stay allocated up to this size, because new ones cost page faults: some milliseconds."""


class PagePool:
    """Pages by number, and how many rows hold each.

    They lie in slabs (layers, 2, heads, pages, PAGE_TOKENS, head_dim), keys before values; numbers count through all
    slabs, which have one shape.
    """

    def __init__(self, layers: int, heads: int, head_dim: int) -> None:
        page_bytes = 4 * 2 * layers * heads * PAGE_TOKENS * head_dim
        self._per_slab = max(1, SLAB_BYTES // page_bytes)
        self._shape = (layers, 2, heads, self._per_slab, PAGE_TOKENS, head_dim)
        self._spare_slabs = SPARE_BYTES // (page_bytes * self._per_slab)
        self.slabs: list[Tensor] = []
        self._holders: list[int] = []  # of each page
        self._free: list[int] = []  # a heap: the lowest pages are taken first, so that the last slabs empty

    @property
    def nbytes(self) -> int:
        return sum(slab.nbytes for slab in self.slabs)

    def take(self) -> int:
        """A page that no row holds; it has one holder now."""
        if not self._free:
            self._grow()
        page = heappop(self._free)
        self._holders[page] = 1
        return page

    def share(self, pages: Iterable[int], holders: int) -> None:
        """Add holders to pages."""
        for page in pages:
            self._holders[page] += holders

    def release(self, pages: Iterable[int]) -> None:
        """Take a holder from each page."""
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                heappush(self._free, page)
        self._shrink()

    def own(self, page: int, tokens: int) -> int:
        """In place of a page: itself if it has one holder, else a copy of its first `tokens` tokens."""
        if self._holders[page] == 1:
            return page
        copy = self.take()
        self._holders[page] -= 1
        self._at(copy)[..., :tokens, :] = self._at(page)[..., :tokens, :]
        return copy

    def _at(self, page: int) -> Tensor:
        slab, place = divmod(page, self._per_slab)
        return self.slabs[slab][:, :, :, place]

    def _grow(self) -> None:
        self.slabs.append(_zeros(self._shape))  # entries that no token has filled must not be NaN
        first = len(self._holders)
        self._holders += [0] * self._per_slab
        self._free += range(first, first + self._per_slab)  # the heap was empty

    def _shrink(self) -> None:
        """Drop the last slab while it is free, and the one before too: not at every change between two sizes."""
        while len(self.slabs) > self._spare_slabs and not any(self._holders[-2 * self._per_slab :]):
            self.slabs.pop()
            del self._holders[-self._per_slab :]
            self._free = [page for page in self._free if page < len(self._holders)]
            heapify(self._free)


def _zeros(shape: Sequence[int]) -> Tensor:
    """Zeros in memory of their own, which is used page by page when it is written, and given back when it is dropped.

    Within malloc's heap, what lives for many steps between encodings leaves holes: 8 windows of base left 60 MB.
    """
    memory = mmap.mmap(-1, 4 * math.prod(shape), access=mmap.ACCESS_COPY)  # private: no other process sees it
    return torch.frombuffer(memory, dtype=torch.float32).view(*shape)
