"""The likely cause of a wrong product, from the pattern of its wrong elements.

Each cause is a function that looks for its pattern and returns a sentence, or None. Most compute the result that their
mistake would give and compare it with the result found. The first that fits is named, the most telling first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.npu_check.comparison import Doubles, KnownProduct, Mask
from tilewhisper.kernels.xdna.tile_plan import TilePlan

UNKNOWN = "no known pattern: the micro-kernel computes something else; please send the report"

_NEARLY_ALL = 0.99
_ENOUGH = 8
"""Wrong elements below which another result may fit by chance."""
_CORNER = 16
"""Rows and columns of the first results of the first core, whatever the core tile."""
_SAMPLES = 32
"""Blocks that are searched among all blocks of the expected result."""
_SMALL = 2.0**-6
"""Relative error (root mean square) below which a result is the right one, computed with other roundings."""


@dataclass(frozen=True)
class ArrayLayout:
    """Where the results of a product are computed: the cores' tile in turn, over rows and columns of cores."""

    rows: int
    columns: int
    core: Tile
    micro: Tile
    """(r, s, t) of the matrix instruction."""

    @classmethod
    def of(cls, plan: TilePlan) -> ArrayLayout:
        micro = plan.device.micro_kernels[plan.geometry.dtype_in].tile
        return cls(plan.geometry.rows, plan.geometry.columns, plan.core, micro)

    def split(self, whole: Doubles) -> Doubles:
        """(M, N) as (turn, row of cores, column of cores, m, n); a core's tiles follow each other in this order."""
        m, n = self.core.m, self.core.n
        blocks, across = whole.shape[0] // (self.rows * m), whole.shape[1] // (self.columns * n)
        parts = whole.reshape(blocks, self.rows, m, across, self.columns, n).transpose(0, 3, 1, 4, 2, 5)
        return parts.reshape(blocks * across, self.rows, self.columns, m, n)

    def join(self, tiles: Doubles, shape: tuple[int, ...]) -> Doubles:
        """The inverse of `split`."""
        m, n = self.core.m, self.core.n
        blocks, across = shape[0] // (self.rows * m), shape[1] // (self.columns * n)
        parts = tiles.reshape(blocks, across, self.rows, self.columns, m, n)
        return parts.transpose(0, 2, 4, 1, 3, 5).reshape(shape)


@dataclass(frozen=True, eq=False)
class Evidence:
    """A wrong result."""

    product: KnownProduct
    found: Doubles
    """(m, n)."""
    unwritten: Mask
    """Elements that still have the bytes from before the run."""
    layout: ArrayLayout | None
    """None for a design of another tool, whose tiles are unknown."""

    @cached_property
    def wrong(self) -> Mask:
        return self.product.wrong(self.found)

    @cached_property
    def tolerance(self) -> float:
        """For other results than the expected one, whose bounds are about as large."""
        return 2 * float(self.product.bound.max())

    def fits(self, other: Doubles) -> bool:
        """Whether nearly all wrong elements are those of another result (m, n)."""
        near = np.abs(self.found - other)[self.wrong] <= self.tolerance
        return near.size >= _ENOUGH and bool(near.mean() >= _NEARLY_ALL)


Cause = Callable[[Evidence], str | None]


def likely_cause(evidence: Evidence) -> str:
    with np.errstate(over="ignore", invalid="ignore"):  # wrong results hold NaN, infinity and huge numbers
        return next((reason for cause in CAUSES if (reason := cause(evidence))), UNKNOWN)


def unwritten(e: Evidence) -> str | None:
    if e.unwritten.all():
        return "no element was written: the design did not run, or its result was not synced to the host"
    if not e.unwritten.any():
        return None
    where = place(e, e.unwritten)
    return f"{e.unwritten.sum():,} elements were never written{where}: the results of these cores did not reach DDR"


def zero(e: Evidence) -> str | None:
    if e.found.any():
        return None
    return (
        "all elements are zero: A or B did not reach the cores (not synced to the device), or the kernel only zeroes C"
    )


def fewer_terms(e: Evidence) -> str | None:
    """The corner holds the first sums of the first core, which a binary of another K ends at its own K."""
    step = e.layout.core.k if e.layout else 8
    k = e.product.a.shape[1]
    rows, columns = np.nonzero(e.wrong[:_CORNER, :_CORNER])
    if len(rows) < _ENOUGH:
        return None
    sums = np.cumsum(e.product.a[rows] * e.product.b[:, columns].T, axis=1)
    found = e.found[rows, columns]
    for end in range(step, k, step):
        first = sums[:, end - 1]
        if (np.abs(found - first) <= e.tolerance).mean() >= _NEARLY_ALL:
            return f"the sums end after {end} of {k} terms: the binary was built for K = {end}"
        if (np.abs(found - (sums[:, -1] - first)) <= e.tolerance).mean() >= _NEARLY_ALL:
            return f"the sums hold only their last {k - end} of {k} terms: C is zeroed again after some k-steps"
    return None


def not_zeroed(e: Evidence) -> str | None:
    """Tiles of C have one buffer on a core, or two in turn."""
    if e.layout is None:
        return None
    tiles = e.layout.split(e.product.result)
    for buffers in (1, 2):
        summed = tiles.copy()
        for turn in range(buffers, len(tiles)):
            summed[turn] += summed[turn - buffers]
        if e.fits(e.layout.join(summed, e.found.shape)):
            return "each tile has the core's earlier tiles added: C is not zeroed before a new tile"
    return None


def wrong_operands(e: Evidence) -> str | None:
    return next((why for why, a, b in operand_mistakes(e.product) if e.fits(a @ b)), None)


def operand_mistakes(product: KnownProduct) -> Iterator[tuple[str, Doubles, Doubles]]:
    """(the mistake, a (m, k), b (k, n) as it reads them)."""
    a, b = product.a, product.b
    (m, k), n = a.shape, b.shape[1]
    yield "the sign bits of A and B are ignored: bf16 is read as an unsigned type", np.abs(a), np.abs(b)
    yield "the sign bits of A are ignored", np.abs(a), b
    yield "the sign bits of B are ignored", a, np.abs(b)
    half_a, half_b = (bits.view(np.float16).astype(np.float64) for bits in (product.a_bits, product.b_bits))
    yield "A and B are read as float16 instead of bf16", half_a, half_b
    yield "B is read as column-major: the design was built for a transposed B", a, b.reshape(n, k).T
    yield "A is read as column-major", a.reshape(k, m).T, b
    if m == n:
        yield "A and B are exchanged: the order of the kernel's buffers", b.reshape(m, k), a.reshape(k, n)


def wrong_order(e: Evidence) -> str | None:
    return next((why for why, other in order_mistakes(e.product, e.layout) if e.fits(other)), None)


def order_mistakes(product: KnownProduct, layout: ArrayLayout | None) -> Iterator[tuple[str, Doubles]]:
    """(the mistake, the result in the order it leaves it)."""
    result = product.result
    yield "C is written column-major", result.T.reshape(result.shape)
    if layout:
        (m, n), (r, t) = (layout.core.m, layout.core.n), (layout.micro.m, layout.micro.n)
        tiles = layout.split(result)
        blocks = tiles.reshape(*tiles.shape[:3], m // r, r, n // t, t).swapaxes(-2, -3).reshape(tiles.shape)
        yield (
            f"the {r}x{t} blocks of C are not put back into rows: the layout of C in the memory tiles",
            layout.join(blocks, result.shape),
        )


def moved_blocks(e: Evidence) -> str | None:
    """Wrong blocks that hold the results of other places."""
    sizes = [(_CORNER, _CORNER), (4, 4)]
    if e.layout:
        sizes = [(e.layout.core.m, e.layout.core.n), (e.layout.micro.m, e.layout.micro.n)]
    for height, width in sizes:
        found, expected = _blocks(e.found, height, width), _blocks(e.product.result, height, width)
        bad = np.flatnonzero(_blocks(e.wrong.astype(np.float64), height, width).any(axis=1))
        chosen = bad[np.linspace(0, len(bad) - 1, min(_SAMPLES, len(bad)), dtype=int)]
        sources = [np.flatnonzero((np.abs(expected - found[i]) <= e.tolerance).all(axis=1)) for i in chosen]
        if len(expected) > 1 and np.mean([len(source) > 0 for source in sources]) >= _NEARLY_ALL:
            across = e.found.shape[1] // width
            to, source = (divmod(int(i), across) for i in (chosen[0], sources[0][0]))
            return (
                f"blocks of {height}x{width} are at wrong places: block {to} holds the result of block {source}; "
                "a layout of the memory tiles, or an offset or stride of a shim tile"
            )
    return None


def _blocks(whole: Doubles, height: int, width: int) -> Doubles:
    """(M, N) as (blocks, height * width), without the rest at the right and bottom edge."""
    down, across = whole.shape[0] // height, whole.shape[1] // width
    whole = whole[: down * height, : across * width]
    return whole.reshape(down, height, across, width).swapaxes(1, 2).reshape(down * across, height * width)


def other_rounding(e: Evidence) -> str | None:
    """Errors that are small beside the results."""
    error, right = (e.found - e.product.result)[e.wrong], e.product.result[e.wrong]
    relative = np.sqrt(np.mean(error**2) / np.mean(right**2))
    if not relative < _SMALL:
        return None
    about = f"the wrong elements are off by about {100 * relative:.2g} %"
    if np.mean(error < 0) >= _NEARLY_ALL:
        return f"{about}, all too low: the core rounds toward minus infinity (its power-up mode), not to nearest even"
    if np.mean(error * right < 0) >= _NEARLY_ALL:
        return f"{about}, all too near zero: numbers are truncated to bf16, not rounded"
    return f"{about}: another arithmetic, such as block floating point (BFP16), or rounding to bf16 between k-steps"


def factor(e: Evidence) -> str | None:
    found, right = e.found[e.wrong], e.product.result[e.wrong]
    scale = float(found @ right / (right @ right))
    if not np.isfinite(scale) or not e.fits(scale * e.product.result):
        return None
    known = {-1: ": the sign is inverted", 2: ": the product is added twice, C was not zeroed"}
    return f"every wrong element is {scale:.3g} times the expected one{known.get(round(scale), '')}"


def one_place(e: Evidence) -> str | None:
    if where := place(e, e.wrong):
        return f"all wrong elements are{where}: the program, memory or DMA of these cores"
    return None


def not_finite(e: Evidence) -> str | None:
    if count := int((~np.isfinite(e.found)).sum()):
        return f"{count:,} elements are NaN or infinite: C starts with garbage, or the inputs are of another type"
    return None


def place(e: Evidence, mask: Mask) -> str:
    """ " in column 2 of cores" and the like, where the mask covers part of the array; else empty."""
    if e.layout is None:
        return ""
    hit = e.layout.split(mask.astype(np.float64)).sum(axis=(0, 3, 4)) > 0
    rows, columns = (np.flatnonzero(hit.any(axis=axis)) for axis in (1, 0))
    names = []
    if len(rows) < e.layout.rows:
        names.append(f"row {_listed(rows)} of cores")
    if len(columns) < e.layout.columns:
        names.append(f"column {_listed(columns)} of cores")
    return f" in {', '.join(names)}" if names else ""


def _listed(numbers: npt.NDArray[np.intp]) -> str:
    return " and ".join(str(int(number)) for number in numbers)


CAUSES: tuple[Cause, ...] = (
    unwritten,
    zero,
    fewer_terms,
    not_zeroed,
    wrong_operands,
    wrong_order,
    other_rounding,
    factor,
    moved_blocks,
    one_place,
    not_finite,
)
