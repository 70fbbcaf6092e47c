"""The address patterns of one call: DDR through the shim tiles, and the layouts that the memory tiles make.

Sizes and strides are in elements, outermost first; a device's limits are in 32-bit words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilewhisper.kernels.xdna.array import DTYPE_BYTES, WORD_BYTES, ceil_div
from tilewhisper.kernels.xdna.tile_plan import TilePlan, bias_rows


@dataclass(frozen=True)
class Transfer:
    """The addresses that one buffer descriptor walks: sizes and strides in elements, outermost first."""

    operand: Literal["A", "B", "C"]
    at: Literal["shim tile", "memory tile"]
    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def sizes_in_words(self) -> tuple[int, ...]:
        """Only the innermost size is a run of consecutive elements, so only that size changes with the unit."""
        return (*self.sizes[:-1], self._words(self.sizes[-1]))

    @property
    def strides_in_words(self) -> tuple[int, ...]:
        """The innermost stride is 1 element, which the descriptor counts as 1 word."""
        return (*(self._words(stride) for stride in self.strides[:-1]), 1)

    def _words(self, elements: int) -> int:
        return ceil_div(elements * DTYPE_BYTES[self.dtype], WORD_BYTES)


def transfers(plan: TilePlan) -> tuple[Transfer, ...]:
    """A, B and C at the shim tile, then A, B and C at the memory tile.

    At the shim a row block is (rows * m) results high, and A and B are sent again for every row block. The memory tiles
    reorder core tiles into the (r, s, t) blocks of the matrix instruction, and the blocks of C back into rows. Where B
    is stored by columns its blocks stay so: (t, s), which the core transposes.
    """
    g, core, call = plan.geometry, plan.core, plan.launch
    micro = plan.device.micro_kernels[g.dtype_in].tile
    r, s, t = micro.m, micro.k, micro.n
    m, k, n = core.m, core.k, core.n
    across, steps, height = call.n // (n * g.columns), call.k // k, m * g.rows
    views, steps_of_b = plan.views, steps + bias_rows(g, core) // k
    a_shim = ((across, steps, m, k), (0, k, views.a.pitch, 1))
    wide = n * g.columns
    if g.b_by_columns:
        b_shim = ((across, steps, n, k), (wide * views.b.pitch, k, views.b.pitch, 1))
    else:
        b_shim = ((across, steps_of_b, k, n), (wide, k * views.b.pitch, views.b.pitch, 1))
    c_shim = (
        (plan.row_blocks_per_transfer, across, height, n),
        (height * views.c.pitch, wide, views.c.pitch, 1),
    )
    a_core = ((m // r, k // s, r, s), (r * k, s, k, 1))
    if g.b_by_columns:
        b_core = ((k // s, n // t, t, s), (s, t * k, k, 1))
    else:
        b_core = ((k // s, n // t, s, t), (s * n, t, n, 1))
    c_core = ((m // r, r, n // t, t), (r * n, t, r * t, 1))
    return (
        Transfer("A", "shim tile", g.dtype_in, *a_shim),
        Transfer("B", "shim tile", g.dtype_in, *b_shim),
        Transfer("C", "shim tile", g.dtype_out, *c_shim),
        Transfer("A", "memory tile", g.dtype_in, *a_core),
        Transfer("B", "memory tile", g.dtype_in, *b_core),
        Transfer("C", "memory tile", g.dtype_out, *c_core),
    )
