"""A slow oracle of the bf16 datapath in exact fractions, written from the specification, and operands for tests."""

from fractions import Fraction
from typing import Any

import numpy as np

from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values

ONE, TWO, MINUS_ONE, INF, MINUS_INF, NAN, LARGEST, LEAST = (
    0x3F80,
    0x4000,
    0xBF80,
    0x7F80,
    0xFF80,
    0x7FC0,
    0x7F7F,
    0x0001,
)


def _decode(bits: int, fraction: int) -> tuple[Fraction, int]:
    """Value and biased exponent of a finite float with 8 exponent bits; the exponent of a zero is undefined."""
    exponent = max((bits >> fraction) & 0xFF, 1)
    mantissa = bits & ((1 << fraction) - 1)
    if (bits >> fraction) & 0xFF:
        mantissa += 1 << fraction
    sign = -1 if bits >> (fraction + 8) else 1
    return sign * mantissa * Fraction(2) ** (exponent - 127 - fraction), exponent


def _oracle_step(acc: int, a: list[int], b: list[int]) -> int:
    """float32 bits of one lane after one step of finite terms. Python rounds a Fraction half to even."""
    if (acc >> 23) & 0xFF == 0xFF:  # finite products do not change an infinity
        return acc
    terms = []
    for left, right in zip(a, b, strict=True):
        (x, ex), (y, ey) = _decode(left, 7), _decode(right, 7)
        terms.append((x * y, ex + ey + 1 if x * y else 0))
    value, exponent = _decode(acc, 23)
    terms.append((value, exponent + 128 if value else 0))

    unit = Fraction(2) ** (max(exponent for _, exponent in terms) - 278)
    total = sum(round(value / unit) for value, _ in terms) * unit
    return _oracle_float32(total)


def _oracle_float32(total: Fraction) -> int:
    if total == 0:
        return 0
    power = 0
    while abs(total) >= Fraction(2) ** (power + 1):
        power += 1
    while abs(total) < Fraction(2) ** power:
        power -= 1
    mantissa = round(abs(total) / Fraction(2) ** (power - 23))
    if mantissa == 1 << 24:
        mantissa, power = 1 << 23, power + 1
    sign = int(total < 0) << 31
    if power + 127 <= 0:
        return 0
    if power + 127 >= 0xFF:
        return sign | 0x7F800000
    return sign | (power + 127) << 23 | (mantissa - (1 << 23))


def oracle_matmul(a: Any, b: Any, acc: Any) -> Any:
    """float32 bits of acc + a (M, K) @ b (K, N) for finite operands."""
    out = acc.view(np.uint32).copy()
    for i, j in np.ndindex(out.shape):
        lane = int(out[i, j])
        for k in range(0, a.shape[1], 8):
            lane = _oracle_step(lane, a[i, k : k + 8].tolist(), b[k : k + 8, j].tolist())
        out[i, j] = lane
    return out


def random_bits(rng: np.random.Generator, shape: tuple[int, int], low: int, high: int) -> Any:
    """bf16 bits with uniform signs and mantissas, biased exponents in [low, high), and 5 % zeros."""
    bits = rng.integers(low, high, shape) << 7 | rng.integers(0, 128, shape) | rng.integers(0, 2, shape) << 15
    return np.where(rng.random(shape) < 0.05, bits & 0x8000, bits).astype(np.uint16)


def lane(bits: list[int]) -> Any:
    """A row of 8 elements, filled up with zeros."""
    return np.array([bits + [0] * (8 - len(bits))], np.uint16)


def values(x: list[float]) -> list[int]:
    """The bits of values that bf16 represents exactly."""
    bits = bf16_bits(np.array(x, np.float32), Rounding.NEAREST_EVEN)
    assert bf16_values(bits).astype(np.float64).tolist() == x
    return [int(value) for value in bits]


def nearest(x: Any) -> Any:
    """The nearest bf16 numbers, as bits."""
    return bf16_bits(x.astype(np.float32), Rounding.NEAREST_EVEN)
