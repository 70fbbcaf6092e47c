"""The bf16 arithmetic of an AIE2 core, bit for bit: the multiply-accumulate unit and the float32 -> bf16 store.

bf16 is held as uint16 bits (numpy has no bf16), accumulators as float32. Layouts are row-major: a (M, K), b (K, N),
c (M, N). One step of the unit adds 8 products to an accumulator, with all nine terms aligned to the largest exponent:

    exponents   c = ea + eb + 1 of a product, q = eq + 128 of the accumulator, 0 for a zero, E = the largest
    alignment   each term rounded separately, to nearest even, to a multiple of 2^(E - 278): 2^-23 of the leading power
    sum         exact, then one rounding to nearest even to float32
    result      +0 below 2^-126 after rounding (no negative zero either), infinity from 2^128 on

A denormal input has exponent 1 and is not flushed. A NaN or infinity among the terms, and inf * 0 or inf - inf, follow
IEEE; but the sign and fraction of a NaN are those of the sum that treats exponent 255 as an ordinary exponent (fraction
0 where that sum over- or underflows), with the lowest bit set.

There are two tiers. `matmul_exact` equals the chip; `matmul_fast` is a float32 product within `fast_error_bound` of it.
Measured at 256 x 512 x 512 on one thread (EPYC, AVX-512, numpy 2.4): 0.49e9 multiply-adds a second exact, 0.3e9 on a
busy machine, 0.02e9 where a block holds an infinity or NaN; 45e9 fast.

Validated against readings from a Phoenix chip (XDNA1). In all of them the accumulator starts at zero and no result
underflows, so the following rests on the specification only: the alignment of the accumulator, denormal accumulators,
the flush, and the fraction of a NaN in the accumulator. The readings do not distinguish half to even from half up
either. Not valid for AIE2P (XDNA2), whose unit differs. Knows nothing of tiles, buffers or devices.
"""

from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEP = 8  # products summed by one step of the unit

_GRID = 23  # fraction bits that alignment keeps below the leading power of two
_PRODUCT_FRACTION = 14  # of a product of two mantissas, 7 bits each
_FLOAT_FRACTION = 23
_SCALE = 278  # a term aligned to exponent E counts multiples of 2^(E - 278) on the 2^-23 grid

# Smaller sums round to below the least normal float32, 2^-126, and are flushed.
_LEAST_SUM = 2.0**-126 - 2.0**-151

# 8,192 lanes keep a step's products (512 KB) within a CPU core's L2; smaller blocks pay numpy's overhead per call.
_BLOCK_LANES = 8192
_BLOCK_COLUMNS = 512


class Rounding(Enum):
    """The rounding mode of a store to bf16, by its number in the core's rounding register."""

    FLOOR = 0
    """Toward minus infinity: the power-up default."""
    NEAREST_EVEN = 12
    """`conv_even`: to nearest, ties to even."""


def bf16_bits(x: Floats, rounding: Rounding) -> Bits:
    """Store float32 as bf16: uint16 bits of x's shape.

    Denormals are kept. A NaN keeps its sign and the top of its fraction, or 1 where that is zero. Rounding away from
    zero past the largest finite value gives infinity. Raises ValueError when x is not float32.
    """
    if x.dtype != np.float32:
        raise ValueError(f"a store expects float32, got {x.dtype}: convert it first")
    bits = np.ascontiguousarray(x).view(np.uint32)
    high = bits >> 16
    if rounding is Rounding.FLOOR:
        stored = high + ((bits >> 31) & (bits & 0xFFFF != 0))
    else:
        stored = (bits + (0x7FFF + (high & 1))) >> 16
    nan = high | (high & 0x7F == 0)
    out: Bits = np.where(np.isnan(x), nan, stored).astype(np.uint16).reshape(x.shape)
    return out


def bf16_values(bits: Bits) -> Floats:
    """The values of bf16 bits, exactly: float32 of the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def mac_step(acc: Floats, a: Bits, b: Bits) -> Floats:
    """One step of the unit: acc (..., r, t) + a (..., r, 8) @ b (..., 8, t), float32 (..., r, t).

    Computed in integers like the hardware; `matmul_exact` is the fast way to compute many steps.
    """
    left, right = _unpack_bf16(a[..., :, None, :]), _unpack_bf16(b.swapaxes(-1, -2)[..., None, :, :])
    start = _unpack(acc.view(np.uint32), _FLOAT_FRACTION)
    products = left.mantissa * right.mantissa
    c = np.where(products == 0, 0, left.exponent + right.exponent + 1)
    q = np.where(start.mantissa == 0, 0, start.exponent + 128)
    top = np.maximum(c.max(axis=-1), q)
    total = _align(products, _PRODUCT_FRACTION, top[..., None] - c).sum(axis=-1)
    total += _align(start.mantissa, _FLOAT_FRACTION, top - q)
    with np.errstate(invalid="ignore"):  # float64 holds every finite sum, so a result that is not finite here is IEEE's
        terms = bf16_values(a).astype(np.float64)[..., :, None, :] * bf16_values(b).swapaxes(-1, -2)[..., None, :, :]
        ieee = terms.sum(axis=-1) + acc
    return _normalise(total, top, ieee)


class _Unpacked(NamedTuple):
    mantissa: Ints  # signed
    exponent: Ints  # biased; 1 for a denormal


def _unpack(bits: npt.NDArray[np.unsignedinteger], fraction: int) -> _Unpacked:
    wide = bits.astype(np.int64)
    exponent = (wide >> fraction) & 0xFF
    magnitude = (wide & ((1 << fraction) - 1)) | ((exponent != 0).astype(np.int64) << fraction)
    return _Unpacked(np.where(wide >> (fraction + 8) == 1, -magnitude, magnitude), np.maximum(exponent, 1))


def _unpack_bf16(bits: Bits) -> _Unpacked:
    return _unpack(bits, 7)


def _round_shift(x: Ints, shift: Ints) -> Ints:
    """x / 2^shift rounded to nearest even, for shifts >= 1."""
    below_half = (1 << (shift - 1)) - 1
    rounded: Ints = (x + below_half + ((x >> shift) & 1)) >> shift
    return rounded


def _align(mantissa: Ints, fraction: int, distance: Ints) -> Ints:
    """A term rounded to the common grid; `distance` is how far its exponent is below the largest."""
    return _round_shift(mantissa << _GRID, np.minimum(distance + fraction, 61))


def _normalise(total: Ints, top: Ints, ieee: Doubles) -> Floats:
    """The sum as float32: rounded once, then flushed, overflowed, or replaced where the IEEE sum is not finite."""
    lead = np.maximum(np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1, 0)
    # The sum is shifted up by 24 bits first, so that the shift down to float32's fraction is never negative.
    mantissa = _round_shift(np.abs(total) << (_FLOAT_FRACTION + 1), lead + 1)
    biased = top + lead - _GRID - 128
    # An addition and not an OR: a mantissa that rounded up to 2^24 carries into the exponent.
    bits = (biased << _FLOAT_FRACTION) + mantissa - (1 << _FLOAT_FRACTION)
    exponent = bits >> _FLOAT_FRACTION
    vanished = (total == 0) | (exponent <= 0)
    infinity = 0xFF << _FLOAT_FRACTION
    negative = total < 0

    fraction = np.where(vanished | (exponent >= 0xFF), 0, bits & ((1 << _FLOAT_FRACTION) - 1))
    bits = np.where(exponent >= 0xFF, infinity, bits)
    bits = np.where(vanished, 0, bits | (negative.astype(np.int64) << 31))
    bits = np.where(np.isinf(ieee), infinity | (ieee < 0).astype(np.int64) << 31, bits)
    bits = np.where(np.isnan(ieee), infinity | 1 | fraction | negative.astype(np.int64) << 31, bits)
    return bits.astype(np.uint32).view(np.float32)


def matmul_exact(a_bits: Bits, b_bits: Bits, acc: Floats | None = None) -> Floats:
    """acc + a (M, K) @ b (K, N) as the chip computes it, in steps of 8 in order of k: a new float32 (M, N).

    Working memory is a block of at most 8,192 lanes and its operands in float64. Raises ValueError on shapes or types
    that do not match, and on a K that is not a multiple of 8.
    """
    out = _accumulator(a_bits, b_bits, acc)
    if a_bits.shape[1] % STEP:
        raise ValueError(f"K must be a multiple of {STEP}, got {a_bits.shape[1]}: pad it with zeros")
    columns = max(1, min(_BLOCK_COLUMNS, out.shape[1]))
    rows = max(1, _BLOCK_LANES // columns)
    for j in range(0, out.shape[1], columns):
        right = _operand(b_bits[:, j : j + columns])
        for i in range(0, out.shape[0], rows):
            lanes = out[i : i + rows, j : j + columns]
            _accumulate(np.ascontiguousarray(lanes), _operand(a_bits[i : i + rows].T), right, into=lanes)
    return out


def matmul_fast(a_bits: Bits, b_bits: Bits, acc: Floats | None = None) -> Floats:
    """acc + a (M, K) @ b (K, N) in float32: exact products of bf16 values, sums in the host's order; float32 (M, N).

    Within `fast_error_bound` of `matmul_exact` where neither overflows: at most (17 K / 8 + 1) 2^-24 of the sum of the
    terms' magnitudes T, to first order. Observed at K = 512, 16,384 lanes each, in ulps of the result (median, 99 %)
    and in 2^-24 T (largest): Gaussian 2, 64, 2; positive 2, 8, 15; heavy tails 3, 105, 21; sums that cancel to 2^-7
    of their terms 192, 15,000, 1.8. So ulps say little where terms cancel; relative to T the two are always close.

    Different from the chip: NaN fractions, which partial sum overflows first, and the flush of tiny results. Any K.
    Raises ValueError on shapes or types that do not match.
    """
    out = _accumulator(a_bits, b_bits, acc)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaNs are valid results, as on the chip
        out += bf16_values(a_bits) @ bf16_values(b_bits)
    return out


def fast_error_bound(a_bits: Bits, b_bits: Bits, acc: Floats | None = None) -> Doubles:
    """The largest difference of `matmul_fast` from `matmul_exact` for finite operands, if neither overflows: (M, N).

    Let u = 2^-24 and T = |acc| + sum_k |a_k b_k|, where a denormal counts as 2^-126.

    Fast: a product of two 8-bit mantissas is exact in float32; K sums in any order err by at most
    (K + 1) u / (1 - (K + 1) u) T, the accumulator included.

    Exact: in a step, the terms at the leading power of two are not rounded and each of the other eight at most errs by
    half a grid unit, u times that power, which is at most the largest term; then follows one rounding to
    float32. So each of the K / 8 steps multiplies the bound of the error by at most (1 + 8 u)(1 + u).

    The flush of a step, and products below float32's range, add at most 2^-126 each.
    """
    u = 2.0**-24
    k = a_bits.shape[1]
    start = 0.0 if acc is None else _magnitude(acc)
    terms = start + _magnitude(bf16_values(a_bits)) @ _magnitude(bf16_values(b_bits))
    fast = (k + 1) * u / (1 - (k + 1) * u)
    exact = ((1 + 8 * u) * (1 + u)) ** (k / STEP) - 1
    return np.asarray((fast + exact) * terms + 2 * k * 2.0**-126)


def _magnitude(values: Floats) -> Doubles:
    return np.where(values == 0, 0.0, np.maximum(np.abs(values.astype(np.float64)), 2.0**-126))


def _accumulator(a_bits: Bits, b_bits: Bits, acc: Floats | None) -> Floats:
    """A new accumulator for a product. Raises ValueError if it or the operands do not match."""
    if a_bits.dtype != np.uint16 or b_bits.dtype != np.uint16:
        raise ValueError(f"expected bf16 bits in uint16, got {a_bits.dtype} and {b_bits.dtype}: use bf16_bits")
    if a_bits.ndim != 2 or b_bits.ndim != 2 or a_bits.shape[1] != b_bits.shape[0]:
        raise ValueError(f"expected operands (M, K) and (K, N), got {a_bits.shape} and {b_bits.shape}")
    shape = (a_bits.shape[0], b_bits.shape[1])
    if acc is None:
        return np.zeros(shape, np.float32)
    if acc.dtype != np.float32 or acc.shape != shape:
        raise ValueError(f"expected an accumulator float32 {shape}, got {acc.dtype} {acc.shape}")
    return acc.copy()


class _Operand(NamedTuple):
    """One side of a block's product, k first."""

    bits: Bits  # (K, lanes)
    values: Doubles
    exponents: npt.NDArray[np.int16]  # biased; far below all others for a zero
    finite: bool


def _operand(bits: Bits) -> _Operand:
    bits = np.ascontiguousarray(bits)
    exponents = np.maximum((bits >> 7) & 0xFF, 1).astype(np.int16)
    exponents[bits & 0x7FFF == 0] = -1024
    finite = not bool((bits & 0x7F80 == 0x7F80).any())
    # The value of an infinity or NaN is never used, and converting a signalling NaN would warn.
    values = bf16_values(bits).astype(np.float64) if finite else np.empty((0, 0))
    return _Operand(bits, values, exponents, finite)


def _accumulate(acc: Floats, a: _Operand, b: _Operand, into: Floats) -> None:
    """All steps of one block of lanes: acc (r, t) plus the product of a (K, r) and b (K, t), written to `into`."""
    if not (a.finite and b.finite) or np.isnan(acc).any():  # only the integer steps compute a NaN's payload
        for k in range(0, len(a.bits), STEP):
            acc = mac_step(acc, a.bits[k : k + STEP].T, b.bits[k : k + STEP])
        into[...] = acc
        return
    products = np.empty((STEP, *acc.shape))
    exponents = np.empty((STEP, *acc.shape), np.int16)
    with np.errstate(over="ignore"):  # a sum past float32's range is infinity, as on the chip
        for k in range(0, len(a.bits), STEP):
            step = slice(k, k + STEP)
            np.multiply(a.values[step, :, None], b.values[step, None, :], out=products)
            np.add(a.exponents[step, :, None], b.exponents[step, None, :], out=exponents)
            acc = _step_in_doubles(acc, products, exponents)
    into[...] = acc


def _step_in_doubles(acc: Floats, products: Doubles, exponents: npt.NDArray[np.int16]) -> Floats:
    """`mac_step` for finite terms: products (8, r, t), overwritten, and the sums of their biased exponents.

    float64 holds each product and the sum of nine aligned terms exactly. To align a term, 1.5 * 2^52 grid units are
    added and subtracted again: the addition rounds to the nearest unit, ties to even, like the shift on the chip.
    """
    q = ((acc.view(np.int32) >> _FLOAT_FRACTION) & 0xFF).astype(np.int16)
    np.maximum(q, 1, out=q)
    q += 128
    q *= acc != 0
    top = exponents.max(axis=0)
    top += 1
    np.maximum(top, q, out=top)

    # 1.5 * 2^52 units of 2^(top - 278) on the 2^-23 grid, composed as the bits of a float64.
    anchor = top.astype(np.int64)
    anchor += 1023 + 52 - _SCALE + _FLOAT_FRACTION - _GRID
    anchor <<= 52
    anchor |= 1 << 51
    units = anchor.view(np.float64)

    products += units
    products -= units
    total = acc + units
    total -= units
    total += np.add.reduce(products, axis=0)

    result: Floats = total.astype(np.float32)
    result *= np.abs(total) >= _LEAST_SUM
    result += np.float32(0)  # -0 becomes +0
    return result
