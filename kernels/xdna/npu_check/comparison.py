"""A product of known result: random operands, the result in float64, and the error that its arithmetic may have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tilewhisper.kernels.xdna.buffers import Bits, values
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, fast_error_bound

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_FLOAT_ROUNDING = 2.0**-23
_BF16_ROUNDING = 2.0**-8
"""Relative error of a rounding to the nearest bf16."""


@dataclass(frozen=True, eq=False)
class KnownProduct:
    """Operands as bf16 bits, a (m, k) and b (k, n), and the dtype of the result that a design computes from them."""

    a_bits: Bits
    b_bits: Bits
    dtype_out: str
    rounded_every: int
    """Terms of a sum between two roundings to dtype_out. K if C stays float32 on the core."""

    @classmethod
    def random(cls, m: int, k: int, n: int, dtype_out: str, rounded_every: int | None = None) -> KnownProduct:
        """Signed numbers; the same for the same sizes."""
        numbers = np.random.default_rng((m, k, n))
        a, b = (
            bf16_bits(numbers.standard_normal(shape, dtype=np.float32), Rounding.NEAREST_EVEN)
            for shape in ((m, k), (k, n))
        )
        return cls(a, b, dtype_out, rounded_every or k)

    @cached_property
    def a(self) -> Doubles:
        return values(self.a_bits)

    @cached_property
    def b(self) -> Doubles:
        return values(self.b_bits)

    @cached_property
    def result(self) -> Doubles:
        """(m, n)."""
        return self.a @ self.b

    @cached_property
    def bound(self) -> Doubles:
        """The largest error of each element, (m, n).

        Sums in float32: at most (17 K / 8 + 1) 2^-24 of the sum of the terms' magnitudes (`fast_error_bound`, which
        covers sums in any order and the alignment of AIE2's unit). Each rounding to bf16 adds 2^-8 of the sum so far,
        itself wrong by the roundings before.
        """
        bound: Doubles = fast_error_bound(self.a_bits, self.b_bits)
        if self.dtype_out == "bf16":
            for end in range(self.rounded_every, self.a.shape[1] + 1, self.rounded_every):
                partial = np.abs(self.a[:, :end] @ self.b[:end])
                bound = bound + _BF16_ROUNDING * (partial + bound)
        return bound

    def wrong(self, found: Doubles) -> Mask:
        """Which elements of found (m, n) are outside the bound; NaN is."""
        return ~(np.abs(found - self.result) <= self.bound)


@dataclass(frozen=True, eq=False)
class KnownLinear(KnownProduct):
    """A product with a bias (n,) and perhaps a GELU, rounded to bf16 once."""

    bias: Doubles
    gelu: bool

    @cached_property
    def result(self) -> Doubles:
        sums = torch.from_numpy(self.a @ self.b + self.bias)
        activated: Doubles = (torch.nn.functional.gelu(sums) if self.gelu else sums).numpy()
        return activated

    @cached_property
    def bound(self) -> Doubles:
        """GELU's slope is at most 1.13, and the micro-kernel's GELU errs by at most 2^-13 (microkernels/gelu.h)."""
        error = fast_error_bound(self.a_bits, self.b_bits) + _FLOAT_ROUNDING * (
            np.abs(self.a @ self.b) + 2 * np.abs(self.bias)
        )
        if self.gelu:
            error = 1.13 * error + 2.0**-13
        bound: Doubles = error + _BF16_ROUNDING * (np.abs(self.result) + error)
        return bound


@dataclass(frozen=True)
class WrongElement:
    """The first wrong element of a result, by rows."""

    row: int
    column: int
    expected: float
    found: float
    allowed: float
    """Error that the arithmetic may have."""


@dataclass(frozen=True)
class Difference:
    """How a result differs from the known one."""

    wrong: int
    elements: int
    first: WrongElement


def compare(product: KnownProduct, found: Doubles) -> Difference | None:
    """Compare found (m, n) with the product, element by element; None if all are within their bound."""
    wrong = product.wrong(found)
    if not wrong.any():
        return None
    row, column = (int(i) for i in np.argwhere(wrong)[0])
    at = (row, column)
    first = WrongElement(row, column, float(product.result[at]), float(found[at]), float(product.bound[at]))
    return Difference(int(wrong.sum()), wrong.size, first)
