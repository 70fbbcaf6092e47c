"""The bf16 datapath against readings from a real chip and against a slow oracle in exact fractions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from datapath_oracle import (
    INF,
    LARGEST,
    LEAST,
    MINUS_INF,
    MINUS_ONE,
    NAN,
    ONE,
    TWO,
    lane,
    oracle_matmul,
    random_bits,
    values,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.kernels.xdna import datapath
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values, mac_step, matmul_exact, matmul_fast

# ---- readings from a Phoenix chip


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
    """Lanes that a single step computes incorrectly."""
    c = mac_step(np.zeros(tiles.c.shape, np.float32), tiles.a, tiles.b)
    return int((c.view(np.uint32) != tiles.c).sum())


def _wrong_by_matmul(tiles: Tiles) -> int:
    """Lanes that the blocked product computes incorrectly."""
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


# Rounding half up everywhere would pass: no reading distinguishes it from half to even. The oracle does.
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


# ---- random products and single rules

EXPONENTS = {
    "ordinary": ((120, 130), (120, 130)),
    "wide, with many roundings": ((110, 140), (110, 140)),
    "near the flush": ((0, 140), (0, 140)),
    "denormals times large numbers": ((0, 3), (240, 255)),
    "products near the flush": ((55, 72), (55, 72)),
    "overflow": ((180, 200), (180, 200)),
    "all finite numbers": ((0, 255), (0, 255)),
}
"""Biased exponents of the elements of a and b: [low, high)."""


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.sampled_from(sorted(EXPONENTS)), st.integers(0, 2**32 - 1))
def test_random_products_equal_exact_fractions(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_range, b_range = EXPONENTS[name]
    a, b = random_bits(rng, (2, 16), *a_range), random_bits(rng, (16, 3), *b_range)
    acc = bf16_values(random_bits(rng, (2, 3), *a_range)) * np.float32(1 + 2**-20)
    expected = oracle_matmul(a, b, acc)
    np.testing.assert_array_equal(matmul_exact(a, b, acc).view(np.uint32), expected)
    for k in range(0, 16, 8):
        acc = mac_step(acc, a[:, k : k + 8], b[k : k + 8])
    np.testing.assert_array_equal(acc.view(np.uint32), expected)


def test_ties_go_to_even() -> None:
    # The accumulator 1 leads, so a grid unit is 2^-23; products of 2^-24 and 3 * 2^-24 are ties.
    acc = np.ones((1, 1), np.float32)
    half, three_halves = values([2.0**-24, 3 * 2.0**-24])
    for product, units in ((half, 0), (three_halves, 2)):
        a, b = lane([product]), lane([ONE]).T
        for result in (mac_step(acc, a, b), matmul_exact(a, b, acc)):
            assert result[0, 0] == 1 + units * 2.0**-23


def test_each_term_is_rounded_separately() -> None:
    # Eight products of just under half a grid unit: their sum would be nearly four units.
    a, b = lane(values([255 / 256 * 2.0**-24]) * 8), lane([ONE] * 8).T
    for result in (mac_step(np.ones((1, 1), np.float32), a, b), matmul_exact(a, b, np.ones((1, 1), np.float32))):
        assert result[0, 0] == 1


def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = random_bits(rng, (37, 24), 120, 130), random_bits(rng, (24, 41), 120, 130)
    b[3, 40] = INF  # this block uses the integer steps, the others float64
    whole = matmul_exact(a, b)
    monkeypatch.setattr(datapath, "_BLOCK_LANES", 64)
    monkeypatch.setattr(datapath, "_BLOCK_COLUMNS", 16)
    np.testing.assert_array_equal(matmul_exact(a, b).view(np.uint32), whole.view(np.uint32))


# ---- special cases: one lane, the other products are zero


def _both(a: list[int], b: list[int], acc: float = 0.0) -> int:
    """float32 bits of one lane, after checking that the single step and the blocked product agree."""
    start = np.array([[acc]], np.float32)
    step = mac_step(start, lane(a), lane(b).T).view(np.uint32)
    np.testing.assert_array_equal(matmul_exact(lane(a), lane(b).T, start).view(np.uint32), step)
    return int(step[0, 0])


SPECIAL = {
    "an empty sum is +0": ([], [], 0.0, 0x00000000),
    "-0 products and a -0 accumulator are +0": ([0x8000] * 8, [ONE] * 8, -0.0, 0x00000000),
    "cancellation is +0": ([ONE, MINUS_ONE], [TWO, TWO], 0.0, 0x00000000),
    "cancellation against the accumulator": ([ONE], [ONE], -1.0, 0x00000000),
    "a grid unit remains after cancellation": (
        [ONE, MINUS_ONE, 0x3480],
        [TWO, TWO, ONE],
        0.0,
        0x34800000,
    ),
    "half a grid unit does not remain": ([ONE, MINUS_ONE, 0x3400], [TWO, TWO, ONE], 0.0, 0x00000000),
    "a denormal input is not flushed": ([LEAST], [0x7F00], 0.0, 0x3C800000),  # 2^-133 * 2^127 = 2^-6
    "a denormal result is flushed": ([LEAST], [ONE], 0.0, 0x00000000),
    "a negative denormal result is flushed to +0": ([0x8001], [ONE], 0.0, 0x00000000),
    "the least normal result is kept": ([0x0080], [ONE], 0.0, 0x00800000),
    "a denormal accumulator is flushed by a step": ([], [], 2.0**-130, 0x00000000),
    "the largest accumulator is kept": ([], [], 3.4028234663852886e38, 0x7F7FFFFF),
    "overflow is infinity": ([LARGEST], [TWO], 0.0, 0x7F800000),
    "negative overflow is negative infinity": ([LARGEST], [0xC000], 0.0, 0xFF800000),
    "overflow of the sum": ([LARGEST, LARGEST], [ONE, ONE], 0.0, 0x7F800000),
    "no overflow on the way to a finite sum": ([LARGEST, LARGEST, 0xFF7F], [ONE] * 3, 0.0, 0x7F7F0000),
    "an infinity among products": ([INF], [ONE], -1.0, 0x7F800000),
    "a negative infinity among products": ([INF], [MINUS_ONE], 1.0, 0xFF800000),
    "an infinite accumulator stays": ([LARGEST], [0xFF7F], np.inf, 0x7F800000),
    "a negative infinite accumulator stays": ([LARGEST], [LARGEST], -np.inf, 0xFF800000),
    "inf * 0 is NaN with payload 1": ([INF], [0], 0.0, 0x7F800001),
    "inf - inf is NaN": ([INF, MINUS_INF], [ONE, ONE], 0.0, 0x7F800001),
    "inf - inf against the accumulator": ([INF], [ONE], -np.inf, 0x7F800001),
    "a NaN among products is NaN": ([NAN], [ONE], 0.0, 0x7F800001),
    "a NaN has the sign of the sum": ([NAN], [MINUS_ONE], 0.0, 0xFF800001),
    "a NaN has the fraction of the sum if that is in range": ([NAN], [0x3F00], 0.0, 0x7FC00001),  # 1.5 * 2^128 * 2^-1
    "a NaN accumulator stays NaN": ([ONE], [ONE], np.nan, 0x7F800001),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_case(name: str) -> None:
    a, b, acc, expected = SPECIAL[name]
    found = _both(a, b, acc)
    assert found == expected, f"{found:#010x} for {expected:#010x}"


def test_the_flush_applies_to_the_rounded_sum() -> None:
    # Four products of 2^-128 have a grid of 2^-151. 2^-126 - 2^-151 is a tie that rounds up to the least normal
    # float32; 2^-126 - 2^-150 has 24 significant bits, more than a denormal float32 holds.
    for power, expected in ((-151, 0x00800000), (-150, 0)):
        a, b = values([2.0**-64] * 4 + [-(2.0**-75)]), values([2.0**-64] * 4 + [2.0 ** (power + 75)])
        assert _both(a, b) == expected


def test_a_denormal_accumulator_aligns_as_exponent_1() -> None:
    # On its grid of 2^-149 two products of 2^-150 vanish and the sum stays below 2^-126; a grid of 2^-150 keeps them.
    small = values([2.0**-75] * 2)
    assert _both(small, small, 2.0**-126 - 2.0**-149) == 0


@pytest.mark.parametrize("rounding", list(Rounding))
def test_store_preserves_every_bf16_value(rounding: Rounding) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(bf16_bits(bf16_values(bits), rounding), bits)


def test_store_rounds_by_its_mode() -> None:
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, -1 - 2.0**-20, 3.4028235e38, -3.4028235e38], np.float32)
    down = bf16_values(bf16_bits(x, Rounding.FLOOR))
    nearest = bf16_values(bf16_bits(x, Rounding.NEAREST_EVEN))
    np.testing.assert_array_equal(
        down, [1, 1 + 2.0**-7, -1 - 2.0**-7, -1 - 2.0**-7, bf16_values(lane([LARGEST]))[0, 0], -np.inf]
    )
    np.testing.assert_array_equal(nearest, [1, 1 + 2.0**-6, -1, -1, np.inf, -np.inf])


# ---- invalid operands


@pytest.mark.parametrize("product", [matmul_exact, matmul_fast])
def test_mismatched_operands_raise(product: Callable[..., Any]) -> None:
    a, b = np.zeros((3, 8), np.uint16), np.zeros((8, 5), np.uint16)
    with pytest.raises(ValueError, match="bf16 bits in uint16, got float32"):
        product(bf16_values(a), b)
    with pytest.raises(ValueError, match=r"got \(3, 8\) and \(5, 8\)"):
        product(a, b.T)
    with pytest.raises(ValueError, match=r"float32 \(3, 5\), got float32 \(5, 3\)"):
        product(a, b, np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="float64"):
        product(a, b, np.zeros((3, 5)))


def test_exact_needs_whole_steps_and_a_store_needs_float32() -> None:
    with pytest.raises(ValueError, match="K must be a multiple of 8, got 12"):
        matmul_exact(np.zeros((3, 12), np.uint16), np.zeros((12, 5), np.uint16))
    with pytest.raises(ValueError, match="float64"):
        bf16_bits(np.zeros(3), Rounding.FLOOR)


def test_a_product_does_not_change_its_operands() -> None:
    rng = np.random.default_rng(0)
    a, b, acc = random_bits(rng, (4, 16), 120, 130), random_bits(rng, (16, 4), 120, 130), np.ones((4, 4), np.float32)
    before = a.copy(), b.copy(), acc.copy()
    for product in (matmul_exact, matmul_fast):
        assert not np.shares_memory(product(a, b, acc), acc)
    for now, then in zip((a, b, acc), before, strict=True):
        np.testing.assert_array_equal(now, then)
