"""The comparison of `npu-check`, and the cause that it names for each kind of wrong result."""

from dataclasses import replace

import numpy as np
import pytest

from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values, matmul_exact, matmul_fast
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.npu_check.causes import CAUSES, UNKNOWN, ArrayLayout, Evidence, likely_cause
from tilewhisper.kernels.xdna.npu_check.comparison import KnownProduct, compare
from tilewhisper.kernels.xdna.npu_check.steps import STEPS

LAYOUT = ArrayLayout(rows=2, columns=2, core=Tile(16, 16, 16), micro=Tile(4, 8, 4))
PRODUCT = KnownProduct.random(64, 64, 64, "f32")
RIGHT = PRODUCT.result
TRIANGLE = np.tri(64, dtype=bool)


def cause(found, product=PRODUCT, layout=LAYOUT, unwritten=None):
    unwritten = np.zeros(found.shape, bool) if unwritten is None else unwritten
    return likely_cause(Evidence(product, found, unwritten, layout))


def in_part(found, rows=slice(None), columns=slice(None)):
    """A wrong result in a part of the elements, the right one elsewhere."""
    whole = RIGHT.copy()
    whole[rows, columns] = found[rows, columns]
    return whole


def garbage():
    return np.random.default_rng(9).standard_normal(RIGHT.shape) * 100


def exchanged(height, width):
    """The first two blocks of a size, exchanged."""
    found = RIGHT.copy()
    found[:height, :width], found[:height, width : 2 * width] = (
        RIGHT[:height, width : 2 * width],
        RIGHT[:height, :width],
    )
    return found


def accumulated(buffers):
    """Every tile with the earlier ones of the same core and buffer added."""
    tiles = LAYOUT.split(RIGHT).copy()
    for turn in range(buffers, len(tiles)):
        tiles[turn] += tiles[turn - buffers]
    return LAYOUT.join(tiles, RIGHT.shape)


def blocked():
    """Every tile of a core in the order of the matrix instruction's blocks."""
    found = RIGHT.copy()
    for i in range(0, 64, 16):
        for j in range(0, 64, 16):
            tile = RIGHT[i : i + 16, j : j + 16]
            blocks = [tile[r : r + 4, t : t + 4].ravel() for r in range(0, 16, 4) for t in range(0, 16, 4)]
            found[i : i + 16, j : j + 16] = np.concatenate(blocks).reshape(16, 16)
    return found


A, B = PRODUCT.a, PRODUCT.b
WRONG = {
    "all zero": (np.zeros_like(RIGHT), "all elements are zero: A or B did not reach the cores"),
    "another K": (A[:, :32] @ B[:32], "end after 32 of 64 terms: the binary was built for K = 32"),
    "the last k-steps": (A[:, 48:] @ B[48:], "only their last 16 of 64 terms"),
    "C not zeroed": (accumulated(1), "C is not zeroed before a new tile"),
    "C not zeroed, two buffers": (accumulated(2), "C is not zeroed before a new tile"),
    "unsigned inputs": (abs(A) @ abs(B), "the sign bits of A and B are ignored"),
    "unsigned A": (abs(A) @ B, "the sign bits of A are ignored"),
    "unsigned B": (A @ abs(B), "the sign bits of B are ignored"),
    "transposed A": (A.T @ B, "A is read as column-major"),
    "transposed B": (A @ B.T, "B is read as column-major"),
    "exchanged A and B": (B @ A, "A and B are exchanged"),
    "transposed C": (RIGHT.T, "C is written column-major"),
    "C left in blocks": (blocked(), "the 4x4 blocks of C are not put back into rows"),
    "exchanged tiles": (exchanged(16, 16), "block (0, 0) holds the result of block (0, 1)"),
    "exchanged blocks": (exchanged(4, 4), "blocks of 4x4 are at wrong places"),
    "inverted sign": (-RIGHT, "-1 times the expected one: the sign is inverted"),
    "added twice": (2 * RIGHT, "2 times the expected one: the product is added twice"),
    "rounded down": (
        bf16_values(bf16_bits(RIGHT.astype(np.float32), Rounding.FLOOR)).astype(np.float64),
        "rounds toward minus infinity",
    ),
    "truncated": (
        np.copysign(bf16_values(bf16_bits(np.abs(RIGHT).astype(np.float32), Rounding.FLOOR)), RIGHT).astype(float),
        "truncated to bf16",
    ),
    "another arithmetic": (RIGHT * (1 + 0.005 * np.sign(garbage())), "block floating point"),
    "a column of cores": (
        in_part(garbage(), columns=np.arange(64) // 16 % 2 == 1),
        "all wrong elements are in column 1 of cores",
    ),
    "a row of cores": (in_part(garbage(), rows=np.arange(64) // 16 % 2 == 0), "are in row 0 of cores"),
    "a core": (in_part(garbage(), slice(16, 32), slice(0, 16)), "are in row 1 of cores, column 0 of cores"),
    "not finite": (np.where(TRIANGLE, np.nan, RIGHT), "2,080 elements are NaN or infinite"),
    "nothing known": (np.where(TRIANGLE, garbage(), RIGHT), UNKNOWN),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_mistake_has_its_cause(name):
    found, phrase = WRONG[name]
    assert compare(PRODUCT, found)
    assert phrase in cause(found)


def test_inputs_read_as_float16():
    a, b = (bits.view(np.float16).astype(np.float64) for bits in (PRODUCT.a_bits, PRODUCT.b_bits))
    assert "read as float16" in cause(a @ b)


@pytest.mark.parametrize("name", ["another K", "transposed B", "exchanged tiles", "unsigned inputs", "inverted sign"])
def test_causes_without_a_known_layout(name):
    found, phrase = WRONG[name]
    assert phrase.partition("block (")[0] in cause(found, layout=None)


def test_elements_that_were_never_written():
    garbled, everywhere = garbage(), np.ones(RIGHT.shape, bool)
    assert cause(garbled, unwritten=everywhere).startswith("no element was written")
    column = np.zeros(RIGHT.shape, bool)
    column[:, np.arange(64) // 16 % 2 == 0] = True
    assert "2,048 elements were never written in column 0 of cores" in cause(
        np.where(column, garbled, RIGHT), unwritten=column
    )


def test_a_few_wrong_elements_fit_no_other_result():
    found = RIGHT.copy()
    found[3, 5] = -found[3, 5]
    assert "in row 0 of cores, column 0 of cores" in cause(found)


def test_every_cause_is_tested():
    """Each function of CAUSES is the first that answers for one of the results above, or in its own test."""
    named = set()
    for found, _ in WRONG.values():
        evidence = Evidence(PRODUCT, found, np.zeros(found.shape, bool), LAYOUT)
        with np.errstate(invalid="ignore", over="ignore"):
            named |= {next((each.__name__ for each in CAUSES if each(evidence)), "")}
    assert named >= {each.__name__ for each in CAUSES} - {"unwritten"}


def test_the_first_wrong_element_is_reported():
    found = RIGHT.copy()
    found[7, 9] += 1
    found[8, 0] = np.nan
    difference = compare(PRODUCT, found)
    assert (difference.wrong, difference.elements) == (2, 64 * 64)
    assert (difference.first.row, difference.first.column) == (7, 9)
    assert difference.first.found == pytest.approx(difference.first.expected + 1)
    assert 0 < difference.first.allowed < 1e-3


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_datapath_is_within_the_bound_and_twice_the_bound_is_not(step):
    shape = step.plan(XDNA1).launch
    product = KnownProduct.random(min(shape.m, 64), shape.k, min(shape.n, 64), "f32")
    for matmul in (matmul_exact, matmul_fast):
        assert compare(product, matmul(product.a_bits, product.b_bits).astype(np.float64)) is None
    off = product.result.copy()
    off[3, 4] += 2 * product.bound[3, 4]
    assert compare(product, off).wrong == 1


def test_a_bf16_result_may_err_by_its_roundings_and_no_more():
    product = KnownProduct.random(64, 256, 64, "bf16", rounded_every=32)
    found = np.zeros((64, 64), np.float32)
    for start in range(0, 256, 32):
        part = slice(start, start + 32)
        found = matmul_exact(product.a_bits[:, part], product.b_bits[part], found)
        found = bf16_values(bf16_bits(found, Rounding.NEAREST_EVEN))
    assert compare(product, found.astype(np.float64)) is None
    once = replace(product, rounded_every=256)
    assert compare(once, found.astype(np.float64)), "one rounding allows less"
    rounded = bf16_values(bf16_bits(product.result.astype(np.float32), Rounding.NEAREST_EVEN)).astype(np.float64)
    assert compare(once, rounded) is None
    assert compare(product, product.a[:, :224] @ product.b[:224])
