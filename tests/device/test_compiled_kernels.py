"""The micro-kernels, compiled for this machine: bit for bit against the datapath, and against float64 with bounds."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from datapath_oracle import random_bits

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu.compiler import find_compiler
from tilewhisper.kernels.xdna import microkernels
from tilewhisper.kernels.xdna.array import Tile
from tilewhisper.kernels.xdna.datapath import (
    Rounding,
    bf16_bits,
    bf16_values,
    fast_error_bound,
    matmul_exact,
)
from tilewhisper.kernels.xdna.emulated import compiled_kernels
from tilewhisper.kernels.xdna.emulated.compiled_kernels import ProductKernels, RowKernels, aligned, empty

try:
    find_compiler()
except BackendUnavailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

CORE = Tile(64, 64, 32)
BF16 = 2.0**-8
"""Rounding to bf16 to nearest even, relative to the exact number: half of the last of 8 bits."""
PRODUCT = 2.0**-16
"""Of a product of numbers in two bf16 parts (parts.h)."""


def in_blocks(matrix, rows, columns):
    """A matrix in the order of a memory tile: blocks row by row, each row by row."""
    m, n = matrix.shape
    blocks = matrix.reshape(m // rows, rows, n // columns, columns).transpose(0, 2, 1, 3)
    return aligned(np.ascontiguousarray(blocks).reshape(-1))


def in_rows(blocks, shape, rows, columns):
    m, n = shape
    return blocks.reshape(m // rows, n // columns, rows, columns).transpose(0, 2, 1, 3).reshape(m, n)


def multiplied(kernels, a, b, c, r=4, t=4, *, by_columns=False):
    """c + a @ b of one core tile, computed by a kernel."""
    sums = in_blocks(c, r, t)
    if by_columns:
        k, n = b.shape
        blocks = b.reshape(k // 8, 8, n // t, t).transpose(0, 2, 3, 1)
        kernels.matmul_transposed_bf16_f32(in_blocks(a, r, 8), aligned(np.ascontiguousarray(blocks).reshape(-1)), sums)
    else:
        kernels.matmul_bf16_f32(in_blocks(a, r, 8), in_blocks(b, 8, t), sums)
    return in_rows(sums, c.shape, r, t)


def operands(core, low=120, high=130, seed=0):
    rng = np.random.default_rng(seed)
    a, b = random_bits(rng, (core.m, core.k), low, high), random_bits(rng, (core.k, core.n), low, high)
    return a, b, rng.standard_normal((core.m, core.n)).astype(np.float32)


@pytest.fixture(scope="module")
def exact():
    return ProductKernels("xdna1", CORE, exact=True)


# ---- products


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize(("low", "high"), [(120, 130), (0, 255), (0, 256), (180, 200), (55, 72), (0, 3)])
def test_a_product_equals_the_datapath_bit_for_bit(exact, low, high, by_columns):
    a, b, c = operands(CORE, low, high)
    if high == 256:  # mostly NaN otherwise
        a[:32], b[:, :16] = operands(CORE, 0, 255)[0][:32], operands(CORE, 0, 255)[1][:, :16]
    if high == 3:
        b = random_bits(np.random.default_rng(1), b.shape, 240, 255)
        c[:, ::2] = 2.0**-130
    found = multiplied(exact, a, b, c, by_columns=by_columns)
    np.testing.assert_array_equal(found.view(np.uint32), matmul_exact(a, b, c).view(np.uint32))


def test_the_readings_of_a_chip_are_reproduced(shared):
    path = shared / "silicon" / "mac_4x8x4_bf16.json"
    if not path.is_file():
        pytest.skip(f"the silicon readings are not at {path}")
    read = json.loads(path.read_text())
    tiles = zip(*(np.array(read[name]).reshape(27, -1) for name in "abc"), strict=True)
    one_step = ProductKernels("xdna1", Tile(16, 8, 16), exact=True, extra_flags=("-O1",))
    for a_tile, b_tile, c_tile in tiles:
        a, b = np.zeros((16, 8), np.uint16), np.zeros((8, 16), np.uint16)
        a[:4], b[:, :4] = a_tile.reshape(4, 8), b_tile.reshape(8, 4)
        found = multiplied(one_step, a, b, np.zeros((16, 16), np.float32))[:4, :4]
        np.testing.assert_array_equal(found.view(np.uint32), c_tile.reshape(4, 4))


@pytest.mark.parametrize(
    ("device", "core", "bfp16"),
    [
        ("xdna1", CORE, False),
        ("xdna1", Tile(64, 64, 16), False),
        ("xdna1", Tile(64, 64, 48), False),
        ("xdna2", CORE, False),
        ("xdna2", Tile(64, 64, 48), False),
        ("xdna2", Tile(64, 64, 16), True),
    ],
)
def test_every_core_tile_and_matrix_instruction_multiplies_in_float32(device, core, bfp16):
    kernels = ProductKernels(device, core, exact=False, bfp16=bfp16, extra_flags=("-O1",))
    r, t = (4, 4) if device == "xdna1" else (8 if bfp16 else 4, 8)
    a, b, c = operands(core)
    for by_columns in (False, True):
        found = multiplied(kernels, a, b, c, r, t, by_columns=by_columns)
        difference = np.abs(found.astype(np.float64) - matmul_exact(a, b, c))
        assert (difference <= fast_error_bound(a, b, c)).all()
    header = np.zeros((core.k, core.n), np.uint16)
    header[0] = bf16_bits(np.arange(core.n, dtype=np.float32), Rounding.NEAREST_EVEN)
    out = empty(core.m * core.n, np.uint16)
    kernels.finish_bf16(in_blocks(c, r, t), in_blocks(header, 8, t), out)
    expected = bf16_bits(c + np.arange(core.n, dtype=np.float32), Rounding.NEAREST_EVEN)
    np.testing.assert_array_equal(in_rows(out, c.shape, r, t), expected)


def test_several_objects_are_computed_in_turn(exact):
    a, b, c = operands(CORE)
    sums = in_blocks(c, 4, 4)
    exact.matmul_bf16_f32(aligned(np.tile(in_blocks(a, 4, 8), 3)), in_blocks(b, 8, 4), sums)
    for _ in range(3):
        c = matmul_exact(a, b, c)
    np.testing.assert_array_equal(in_rows(sums, c.shape, 4, 4), c)
    exact.zero_f32(sums)
    assert not sums.any()


# ---- results


def bias_header(bias, activation):
    """A B object whose first three rows sum to the bias."""
    header, rest = np.zeros((CORE.k, CORE.n), np.uint16), bias
    for row in range(3):
        header[row] = bf16_bits(rest, Rounding.NEAREST_EVEN)
        rest = rest - bf16_values(header[row])
    assert not rest.any()
    header[3, 0] = 0x3F80 if activation else 0
    return in_blocks(header, 8, 4)


def test_results_are_rounded_to_nearest_even_after_the_bias(exact):
    _, _, c = operands(CORE)
    bias = np.random.default_rng(1).standard_normal(CORE.n).astype(np.float32)
    out = empty(c.size, np.uint16)
    exact.round_bf16(in_blocks(c, 4, 4), out)
    np.testing.assert_array_equal(in_rows(out, c.shape, 4, 4), bf16_bits(c, Rounding.NEAREST_EVEN))
    exact.finish_bf16(in_blocks(c, 4, 4), bias_header(bias, activation=False), out)
    # Two float32 numbers, of which the unit rounds three parts and the sum: 4 units of the largest, 2^-24 each.
    sums = c.astype(np.float64) + bias
    bound = BF16 * np.abs(sums) + 5 * 2.0**-24 * np.maximum(np.abs(c), np.abs(bias))
    assert (np.abs(in_rows(bf16_values(out), c.shape, 4, 4) - sums) <= bound).all()


def gelu_bound(x):
    """The error that gelu.h derives, step by step: (absolute error, t Phi(-t))."""
    coefficients = [0.957603407, -0.0477576018, -0.01783871, -0.00128950510, 0.000609442235]
    coefficients += [-1.11938881e-5, -7.32312092e-6, 7.02714159e-7, -2.05768113e-8]
    t = np.minimum(np.abs(x), 6)
    value, error = np.full(t.shape, coefficients[-1]), np.zeros(t.shape)
    for coefficient in reversed(coefficients[:-1]):
        error = t * error + PRODUCT * np.abs(t * value)
        value = value * t + coefficient
        error += 4 * 2.0**-24 * np.abs(value)
    relative = 2.0**-18.7 + 16 * error / value + (1 + 2 + 4 + 8 + 1) * (PRODUCT + 4 * 2.0**-24)
    return relative * t * value**16 + 2.0**-24 * np.maximum(x, 0)


@pytest.mark.parametrize("device", ["xdna1", "xdna2"])
def test_gelu_is_exact_to_well_below_its_rounding(device):
    kernels = ProductKernels(device, CORE, exact=device == "xdna1", extra_flags=() if device == "xdna1" else ("-O1",))
    t = 4 if device == "xdna1" else 8
    x = aligned(np.linspace(-6, 6, CORE.m * CORE.n).astype(np.float32))
    header, out = np.zeros((CORE.k, CORE.n), np.uint16), empty(x.size, np.uint16)
    header[3, 0] = 0x3F80
    kernels.finish_bf16(x, in_blocks(header, 8, t), out)
    exact_gelu = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    bound = gelu_bound(x.astype(np.float64))
    assert (np.abs(bf16_values(out) - exact_gelu) <= BF16 * np.abs(exact_gelu) + (1 + BF16) * bound).all()
    small = (x >= -3) & (x < 0)
    assert (bound[small] <= BF16 / 8 * np.abs(exact_gelu[small])).all()
    far = aligned(np.resize(np.array([-1e30, -50, -6.5, 6.5, 50, 1e30], np.float32), x.size))
    kernels.finish_bf16(far, in_blocks(header, 8, t), out)
    np.testing.assert_allclose(bf16_values(out), np.maximum(far, 0), rtol=BF16, atol=1e-8)


# ---- rows


@pytest.mark.parametrize(("device", "width"), [("xdna1", 1536), ("xdna2", 384)])
def test_softmax_is_exact_to_below_its_rounding(device, width):
    rng = np.random.default_rng(0)
    kernels = RowKernels(device, width, exact=device == "xdna1")
    scores = rng.standard_normal((5, width)).astype(np.float32) * np.array([[0], [1], [8], [30], [1e4]], np.float32)
    bias = np.where(np.arange(width) < width - 36, 0, -np.inf).astype(np.float32)
    out = empty(scores.shape, np.uint16)
    kernels.softmax(aligned(scores), aligned(bias), out)
    x = scores.astype(np.float64) + bias
    x -= x.max(axis=1, keepdims=True)
    exact_weights = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    # softmax.cc: the difference from the maximum is a float32 number; 2^-13; width additions; the rounding.
    relative = BF16 + (1 + BF16) * (2.0**-13 + np.minimum(np.abs(x), 88) * 2.0**-23 + width / 16 * 2.0**-24)
    bound = relative * exact_weights + 2 * math.exp(-88)
    assert (np.abs(bf16_values(out) - exact_weights) <= bound).all()
    assert not out[:, width - 36 :].any()


@pytest.mark.parametrize(("device", "width"), [("xdna1", 1536), ("xdna2", 384)])
def test_add_norm_adds_and_normalises(device, width):
    rng = np.random.default_rng(0)
    kernels = RowKernels(device, width, exact=device == "xdna1")
    shift, spread = np.array([[0], [3], [50], [0]], np.float32), np.array([[1], [2], [0.5], [1e-4]], np.float32)
    x = rng.standard_normal((4, width)).astype(np.float32) * spread + shift
    y = bf16_bits(rng.standard_normal((4, width)).astype(np.float32) * spread, Rounding.NEAREST_EVEN)
    total, normed = empty(x.shape, np.float32), empty(x.shape, np.uint16)
    kernels.add_norm(aligned(x), aligned(y), total, normed)
    np.testing.assert_array_equal(total, x + bf16_values(y))
    exact_total = total.astype(np.float64)
    centred = exact_total - exact_total.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
    # The mean errs by width / 16 + 6 roundings of float32; the variance by 2 PRODUCT and as many; its root by half of
    # that and 2^-20; the last product by PRODUCT, and its factors hold 2^-17 each, which PRODUCT includes.
    additions = (width / 16 + 6) * 2.0**-24
    scale = np.abs(expected / centred)
    mean = (additions * np.abs(exact_total).mean(axis=1, keepdims=True) + 2.0**-23 * np.abs(exact_total)) * scale
    relative = BF16 + (1 + BF16) * (2 * PRODUCT + additions + 2.0**-20)
    assert (np.abs(bf16_values(normed) - expected) <= relative * np.abs(expected) + 2 * mean).all()


# ---- what makes these tests fail


MUTATIONS = {
    "a wrong row of A": ("matmul.h", "((row + i) * STEPS + step)", "((row + i) * STEPS + (step ^ 1))"),
    "a wrong column of B": ("matmul.h", "step * COLUMNS + column + j", "step * COLUMNS + column + (j ^ 1)"),
    "a block of C stored elsewhere": (
        "matmul.h",
        "store_v(group + (i * COLUMNS + j)",
        "store_v(group + (j * COLUMNS + i)",
    ),
    "no transposition": ("matmul.h", "aie::transpose(stored, T, S)", "stored"),
    "no rounding mode": ("round_bf16.cc", "aie::set_rounding(aie::rounding_mode::conv_even);", ""),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_gives_another_result(name, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_kernels, "CACHE", replace(compiled_kernels.CACHE, folder=tmp_path / "cache"))
    file, old, new = MUTATIONS[name]
    sources = tmp_path / "sources"
    shutil.copytree(microkernels.SOURCES, sources)
    text = (sources / file).read_text()
    assert text.count(old) == 1
    (sources / file).write_text(text.replace(old, new))
    kernels = ProductKernels("xdna1", CORE, exact=True, sources=sources, extra_flags=("-O0",))
    a, b, c = operands(CORE)
    if file == "matmul.h":
        found = multiplied(kernels, a, b, c, by_columns=name == "no transposition")
        assert (found != matmul_exact(a, b, c)).any()
    else:
        out = empty(c.size, np.uint16)
        kernels.round_bf16(aligned(c.reshape(-1)), out)
        np.testing.assert_array_equal(out, bf16_bits(c.reshape(-1), Rounding.FLOOR))


def test_an_access_outside_the_objects_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_kernels, "CACHE", replace(compiled_kernels.CACHE, folder=tmp_path / "cache"))
    sources = tmp_path / "sources"
    shutil.copytree(microkernels.SOURCES, sources)
    file = sources / "zero_f32.cc"
    file.write_text(file.read_text().replace("i < DIM_M * DIM_N;", "i < DIM_M * DIM_N + 2 * LANES;"))
    kernels = ProductKernels("xdna1", CORE, exact=True, sources=sources, extra_flags=("-O0",))
    with pytest.raises(IndexError, match="zero_f32 made 2 loads or stores that are outside"):
        kernels.zero_f32(empty(CORE.m * CORE.n, np.float32))


def test_wrong_arrays_are_refused(exact):
    c = empty(CORE.m * CORE.n, np.float32)
    with pytest.raises(ValueError, match=r"zero_f32 expects objects of 2,048 float32, one or 1; got 2,047 float32"):
        exact.zero_f32(c[:-1])
    with pytest.raises(ValueError, match="uint16"):
        exact.round_bf16(c, c)
    with pytest.raises(ValueError, match="use `aligned`"):
        exact.zero_f32(np.empty(c.size + 1, np.float32)[1:])


def test_a_failing_compiler_is_a_reason_not_to_use_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailable, match="no-such-compiler"):
        ProductKernels("xdna1", Tile(64, 64, 64), exact=True)
