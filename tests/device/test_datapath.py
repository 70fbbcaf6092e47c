"""The bf16 datapath: readings off a real chip, and a slow oracle in exact fractions written from the specification."""

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tilewhisper.kernels.xdna import datapath
from tilewhisper.kernels.xdna.datapath import (
    Rounding,
    bf16_bits,
    bf16_values,
    fast_error_bound,
    mac_step,
    matmul_exact,
    matmul_fast,
)

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


# ---- readings off a Phoenix chip


class Tiles(NamedTuple):
    a: Any  # (27, 4, 8) bf16 bits
    b: Any  # (27, 8, 4) bf16 bits
    c: Any  # (27, 4, 4) float32 bits


@pytest.fixture(scope="module")
def tiles(shared: Path) -> Tiles:
    found = json.loads(_reading(shared, "mac_4x8x4_bf16.json"))
    tiles = Tiles(
        np.array(found["a"], np.uint16).reshape(-1, 4, 8),
        np.array(found["b"], np.uint16).reshape(-1, 8, 4),
        np.array(found["c"], np.uint32).reshape(-1, 4, 4),
    )
    assert tiles.c.size == 432
    return tiles


def _reading(shared: Path, name: str) -> str:
    path = shared / "silicon" / name
    if not path.is_file():
        pytest.skip(f"the silicon readings are not at {path}")
    return path.read_text()


def _wrong_by_step(tiles: Tiles) -> int:
    """Lanes that a single step of the unit gets wrong."""
    c = mac_step(np.zeros(tiles.c.shape, np.float32), tiles.a, tiles.b)
    return int((c.view(np.uint32) != tiles.c).sum())


def _wrong_by_matmul(tiles: Tiles) -> int:
    """Lanes that the blocked product gets wrong."""
    c = np.stack([matmul_exact(a, b) for a, b in zip(tiles.a, tiles.b, strict=True)])
    return int((c.view(np.uint32) != tiles.c).sum())


@pytest.mark.parametrize("wrong", [_wrong_by_step, _wrong_by_matmul])
def test_every_mac_reading_is_reproduced(tiles: Tiles, wrong: Callable[[Tiles], int]) -> None:
    assert wrong(tiles) == 0


@pytest.mark.parametrize("rounding", list(Rounding))
def test_every_conversion_reading_is_reproduced(shared: Path, rounding: Rounding) -> None:
    table = json.loads(_reading(shared, f"fp32_to_bf16_{rounding.name.lower()}.json"))
    x = np.array(table["fp32"], np.uint32).view(np.float32)
    assert x.size == 96
    np.testing.assert_array_equal(bf16_bits(x, rounding), table["bf16"])
    other = next(mode for mode in Rounding if mode is not rounding)
    assert (bf16_bits(x, other) != table["bf16"]).any()


@pytest.mark.parametrize("grid", [21, 22, 24, 25])
def test_another_alignment_grid_fails_the_readings(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, grid: int) -> None:
    monkeypatch.setattr(datapath, "_GRID", grid)
    assert _wrong_by_step(tiles) > 0
    assert _wrong_by_matmul(tiles) > 0


# Rounding half up everywhere would pass: no reading tells it from half to even. The oracle below does.
ROUNDINGS = {
    "floor": lambda x, shift: x >> shift,
    "toward zero": lambda x, shift: np.sign(x) * (np.abs(x) >> shift),
    "half away from zero": lambda x, shift: np.sign(x) * ((np.abs(x) + (1 << (shift - 1))) >> shift),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_another_rounding_fails_the_readings(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(datapath, "_round_shift", ROUNDINGS[name])
    assert _wrong_by_step(tiles) > 0


@pytest.mark.parametrize("name", ROUNDINGS)
def test_another_rounding_of_the_alignment_alone_fails_the_readings(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def align(mantissa: Any, fraction: int, distance: Any) -> Any:
        return ROUNDINGS[name](mantissa << 23, np.minimum(distance + fraction, 61))

    monkeypatch.setattr(datapath, "_align", align)
    assert _wrong_by_step(tiles) > 0


# ---- a slow oracle, from the specification, in exact fractions


def _decode(bits: int, fraction: int) -> tuple[Fraction, int]:
    """Value and biased exponent of a finite float with 8 exponent bits; a zero's exponent is not defined."""
    exponent = max((bits >> fraction) & 0xFF, 1)
    mantissa = bits & ((1 << fraction) - 1)
    if (bits >> fraction) & 0xFF:
        mantissa += 1 << fraction
    sign = -1 if bits >> (fraction + 8) else 1
    return sign * mantissa * Fraction(2) ** (exponent - 127 - fraction), exponent


def _oracle_step(acc: int, a: list[int], b: list[int]) -> int:
    """float32 bits of one lane after one step of finite terms. Python rounds a Fraction half to even."""
    if (acc >> 23) & 0xFF == 0xFF:  # finite products do not move an infinity
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


def _oracle_matmul(a: Any, b: Any, acc: Any) -> Any:
    out = acc.view(np.uint32).copy()
    for i, j in np.ndindex(out.shape):
        lane = int(out[i, j])
        for k in range(0, a.shape[1], 8):
            lane = _oracle_step(lane, a[i, k : k + 8].tolist(), b[k : k + 8, j].tolist())
        out[i, j] = lane
    return out


def _random_bits(rng: np.random.Generator, shape: tuple[int, int], low: int, high: int) -> Any:
    """bf16 bits with uniform signs and mantissas, biased exponents in [low, high), and one in twenty a zero."""
    bits = rng.integers(low, high, shape) << 7 | rng.integers(0, 128, shape) | rng.integers(0, 2, shape) << 15
    return np.where(rng.random(shape) < 0.05, bits & 0x8000, bits).astype(np.uint16)


EXPONENTS = {
    "ordinary": (120, 130),
    "wide, with many roundings": (110, 140),
    "round the flush": (0, 140),
    "denormals": (0, 3),
    "products near the flush": (55, 72),
    "overflow": (180, 200),
    "anything finite": (0, 255),
}


@pytest.mark.parametrize("name", EXPONENTS)
def test_random_products_agree_with_exact_fractions(name: str) -> None:
    rng = np.random.default_rng(sorted(EXPONENTS).index(name))
    a = _random_bits(rng, (9, 32), *EXPONENTS[name])
    b = _random_bits(rng, (32, 11), *EXPONENTS[name])
    acc = bf16_values(_random_bits(rng, (9, 11), *EXPONENTS[name])) * np.float32(1 + 2**-20)
    if name == "denormals":  # so that the partner is large and the product survives
        b = _random_bits(rng, (32, 11), 240, 255)
    expected = _oracle_matmul(a, b, acc)
    np.testing.assert_array_equal(matmul_exact(a, b, acc).view(np.uint32), expected)
    for k in range(0, 32, 8):
        acc = mac_step(acc, a[:, k : k + 8], b[k : k + 8])
    np.testing.assert_array_equal(acc.view(np.uint32), expected)


def test_ties_go_to_even() -> None:
    # The accumulator 1 leads, so a grid unit is 2^-23; products of 2^-24 and 3 * 2^-24 are ties.
    acc = np.ones((1, 1), np.float32)
    half, three_halves = _values([2.0**-24, 3 * 2.0**-24])
    for product, units in ((half, 0), (three_halves, 2)):
        a, b = _lane([product]), _lane([ONE]).T
        for result in (mac_step(acc, a, b), matmul_exact(a, b, acc)):
            assert result[0, 0] == 1 + units * 2.0**-23


def test_each_term_is_rounded_by_itself() -> None:
    # Eight products of just under half a grid unit: summed first they would be nearly four units.
    a, b = _lane(_values([255 / 256 * 2.0**-24]) * 8), _lane([ONE] * 8).T
    for result in (mac_step(np.ones((1, 1), np.float32), a, b), matmul_exact(a, b, np.ones((1, 1), np.float32))):
        assert result[0, 0] == 1


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = _random_bits(rng, (37, 24), 120, 130), _random_bits(rng, (24, 41), 120, 130)
    b[3, 40] = INF  # one block of integers among blocks of doubles
    whole = matmul_exact(a, b)
    monkeypatch.setattr(datapath, "_BLOCK_LANES", 64)
    monkeypatch.setattr(datapath, "_BLOCK_COLUMNS", 16)
    np.testing.assert_array_equal(matmul_exact(a, b).view(np.uint32), whole.view(np.uint32))


# ---- special cases: one lane, the rest of the eight products zero


def _lane(bits: list[int]) -> Any:
    return np.array([bits + [0] * (8 - len(bits))], np.uint16)


def _values(x: list[float]) -> list[int]:
    """The bits of values that bf16 holds exactly."""
    bits = bf16_bits(np.array(x, np.float32), Rounding.NEAREST_EVEN)
    assert bf16_values(bits).astype(np.float64).tolist() == x
    return [int(value) for value in bits]


def _both(a: list[int], b: list[int], acc: float = 0.0) -> int:
    """float32 bits of one lane, the same by the single step and by the blocked product."""
    start = np.array([[acc]], np.float32)
    step = mac_step(start, _lane(a), _lane(b).T).view(np.uint32)
    np.testing.assert_array_equal(matmul_exact(_lane(a), _lane(b).T, start).view(np.uint32), step)
    return int(step[0, 0])


SPECIAL = {
    "nothing is +0": ([], [], 0.0, 0x00000000),
    "-0 products and a -0 accumulator are +0": ([0x8000] * 8, [ONE] * 8, -0.0, 0x00000000),
    "cancellation is +0": ([ONE, MINUS_ONE], [TWO, TWO], 0.0, 0x00000000),
    "cancellation against the accumulator": ([ONE], [ONE], -1.0, 0x00000000),
    "a grid unit survives the cancellation of terms of 2": ([ONE, MINUS_ONE, 0x3480], [TWO, TWO, ONE], 0.0, 0x34800000),
    "half a unit does not": ([ONE, MINUS_ONE, 0x3400], [TWO, TWO, ONE], 0.0, 0x00000000),
    "a denormal input counts": ([LEAST], [0x7F00], 0.0, 0x3C800000),  # 2^-133 * 2^127 = 2^-6
    "a denormal result is flushed": ([LEAST], [ONE], 0.0, 0x00000000),
    "a negative one to +0": ([0x8001], [ONE], 0.0, 0x00000000),
    "the least normal result is kept": ([0x0080], [ONE], 0.0, 0x00800000),
    "a denormal accumulator is flushed by a step": ([], [], 2.0**-130, 0x00000000),
    "the largest accumulator is kept": ([], [], 3.4028234663852886e38, 0x7F7FFFFF),
    "overflow is infinity": ([LARGEST], [TWO], 0.0, 0x7F800000),
    "of either sign": ([LARGEST], [0xC000], 0.0, 0xFF800000),
    "overflow of the sum": ([LARGEST, LARGEST], [ONE, ONE], 0.0, 0x7F800000),
    "no overflow on the way to a finite sum": ([LARGEST, LARGEST, 0xFF7F], [ONE] * 3, 0.0, 0x7F7F0000),
    "an infinity among products": ([INF], [ONE], -1.0, 0x7F800000),
    "negative": ([INF], [MINUS_ONE], 1.0, 0xFF800000),
    "an infinite accumulator stays": ([LARGEST], [0xFF7F], np.inf, 0x7F800000),
    "negative too": ([LARGEST], [LARGEST], -np.inf, 0xFF800000),
    "inf * 0 is NaN with payload 1": ([INF], [0], 0.0, 0x7F800001),
    "inf - inf is NaN": ([INF, MINUS_INF], [ONE, ONE], 0.0, 0x7F800001),
    "inf - inf against the accumulator": ([INF], [ONE], -np.inf, 0x7F800001),
    "NaN in is NaN": ([NAN], [ONE], 0.0, 0x7F800001),
    "a NaN has the sign of the sum": ([NAN], [MINUS_ONE], 0.0, 0xFF800001),
    "and its fraction where that is in range": ([NAN], [0x3F00], 0.0, 0x7FC00001),  # 1.5 * 2^128 * 2^-1
    "a NaN accumulator stays NaN": ([ONE], [ONE], np.nan, 0x7F800001),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_case(name: str) -> None:
    a, b, acc, expected = SPECIAL[name]
    found = _both(a, b, acc)
    assert found == expected, f"{found:#010x} for {expected:#010x}"


def test_the_flush_looks_at_the_rounded_sum() -> None:
    # Four products of 2^-128 lie on a grid of 2^-151. 2^-151 below 2^-126 is a tie that rounds up to the least normal
    # float32; 2^-150 below is a float of 24 bits under it, which float32's denormals could not hold.
    for power, expected in ((-151, 0x00800000), (-150, 0)):
        a, b = _values([2.0**-64] * 4 + [-(2.0**-75)]), _values([2.0**-64] * 4 + [2.0 ** (power + 75)])
        assert _both(a, b) == expected


def test_a_denormal_accumulator_aligns_as_exponent_1() -> None:
    # On its grid of 2^-149 two products of 2^-150 are lost and the sum stays below 2^-126; a grid of 2^-150 keeps them.
    small = _values([2.0**-75] * 2)
    assert _both(small, small, 2.0**-126 - 2.0**-149) == 0


@pytest.mark.parametrize("rounding", list(Rounding))
def test_store_keeps_what_bf16_holds(rounding: Rounding) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(bf16_bits(bf16_values(bits), rounding), bits)


def test_store_rounds_its_way() -> None:
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, -1 - 2.0**-20, 3.4028235e38, -3.4028235e38], np.float32)
    down = bf16_values(bf16_bits(x, Rounding.FLOOR))
    nearest = bf16_values(bf16_bits(x, Rounding.NEAREST_EVEN))
    np.testing.assert_array_equal(
        down, [1, 1 + 2.0**-7, -1 - 2.0**-7, -1 - 2.0**-7, bf16_values(_lane([LARGEST]))[0, 0], -np.inf]
    )
    np.testing.assert_array_equal(nearest, [1, 1 + 2.0**-6, -1, -1, np.inf, -np.inf])


# ---- the fast tier


def _operands() -> Iterator[Any]:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal
    for k in (8, 64, 384, 1536):
        half, shared_half = normal((48, k // 2)), normal((k // 2, 40))
        cancelling = np.hstack([half, -half * (1 + 2.0**-7 * normal(half.shape))])
        yield pytest.param(normal((48, k)), normal((k, 40)), id=f"gaussian-{k}")
        yield pytest.param(rng.random((48, k)), rng.random((k, 40)), id=f"positive-{k}")
        yield pytest.param(normal((48, k)) * np.exp(3 * normal((48, k))), normal((k, 40)), id=f"heavy-tails-{k}")
        yield pytest.param(cancelling, np.vstack([shared_half, shared_half]), id=f"cancelling-{k}")
        yield pytest.param(normal((48, k)) * 2.0**-126, normal((k, 40)), id=f"denormal-{k}")


def _nearest(x: Any) -> Any:
    return bf16_bits(x.astype(np.float32), Rounding.NEAREST_EVEN)


@pytest.mark.parametrize(("a", "b"), list(_operands()))
def test_fast_stays_within_its_bound(a: Any, b: Any) -> None:
    a_bits, b_bits = _nearest(a), _nearest(b)
    for acc in (None, (a @ b)[::-1].astype(np.float32)):
        exact = matmul_exact(a_bits, b_bits, acc).astype(np.float64)
        bound = fast_error_bound(a_bits, b_bits, acc)
        assert (np.abs(matmul_fast(a_bits, b_bits, acc) - exact) <= bound).all()


def test_the_bound_tells_a_wrong_product() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((32, 384)).astype(np.float32), _nearest(rng.standard_normal((384, 32)))
    wrong = matmul_fast(bf16_bits(a, Rounding.FLOOR), b)
    exact = matmul_exact(_nearest(a), b)
    assert (np.abs(wrong - exact) > fast_error_bound(_nearest(a), b)).mean() > 0.8


def test_the_bound_is_nearly_reached() -> None:
    # Every product lies just under half a grid unit of the accumulator: the chip drops all of them.
    k = 512
    a, b = np.full((1, k), _values([255 / 256 * 2.0**-24])[0], np.uint16), np.full((k, 1), ONE, np.uint16)
    acc = np.ones((1, 1), np.float32)
    exact, fast = matmul_exact(a, b, acc), matmul_fast(a, b, acc)
    assert exact[0, 0] == 1
    assert 0.4 < (fast - exact)[0, 0] / fast_error_bound(a, b, acc)[0, 0] <= 1


def test_the_bound_knows_the_coarse_grid_of_a_denormal() -> None:
    # 2^-133 * 2^127 is 2^-6 but aligns like 2, so the chip drops products that are not small beside 2^-6.
    a, b = _lane([LEAST] + _values([255 / 256 * 2.0**-23]) * 7), _lane([0x7F00] + [ONE] * 7).T
    exact, fast = matmul_exact(a, b), matmul_fast(a, b)
    assert exact[0, 0] == 2.0**-6
    assert 0 < (fast - exact)[0, 0] <= fast_error_bound(a, b)[0, 0]


def test_fast_is_a_step_or_two_of_rounding_from_exact_on_ordinary_data() -> None:
    rng = np.random.default_rng(5)
    a, b = _nearest(rng.standard_normal((64, 64))), _nearest(rng.standard_normal((64, 64)))
    exact = matmul_exact(a, b)
    ulps = np.abs(matmul_fast(a, b).astype(np.float64) - exact) / np.spacing(np.abs(exact))
    assert np.median(ulps) <= 1
    assert np.quantile(ulps, 0.95) <= 4


# ---- what does not fit


@pytest.mark.parametrize("product", [matmul_exact, matmul_fast])
def test_operands_that_do_not_fit_are_refused(product: Callable[..., Any]) -> None:
    a, b = np.zeros((3, 8), np.uint16), np.zeros((8, 5), np.uint16)
    with pytest.raises(ValueError, match="bf16 bits in uint16, not float32"):
        product(bf16_values(a), b)
    with pytest.raises(ValueError, match=r"not \(3, 8\) and \(5, 8\)"):
        product(a, b.T)
    with pytest.raises(ValueError, match=r"float32 \(3, 5\), not float32 \(5, 3\)"):
        product(a, b, np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="float64"):
        product(a, b, np.zeros((3, 5)))


def test_exact_takes_whole_steps_and_a_store_float32() -> None:
    with pytest.raises(ValueError, match="pad K = 12"):
        matmul_exact(np.zeros((3, 12), np.uint16), np.zeros((12, 5), np.uint16))
    with pytest.raises(ValueError, match="float64"):
        bf16_bits(np.zeros(3), Rounding.FLOOR)


def test_a_product_leaves_its_operands_alone() -> None:
    rng = np.random.default_rng(0)
    a, b, acc = _random_bits(rng, (4, 16), 120, 130), _random_bits(rng, (16, 4), 120, 130), np.ones((4, 4), np.float32)
    before = a.copy(), b.copy(), acc.copy()
    for product in (matmul_exact, matmul_fast):
        assert not np.shares_memory(product(a, b, acc), acc)
    for now, then in zip((a, b, acc), before, strict=True):
        np.testing.assert_array_equal(now, then)
