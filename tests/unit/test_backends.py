"""Every backend against float64 numpy, within the error bound of its arithmetic."""

import math

import numpy as np
import pytest
import torch

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import EncoderLayer, Norm, ProductShape, Settings, UnknownBackend
from tilewhisper.kernels.cpu.bf16 import round_to_bf16

SHAPES = [(64, 64, 64), (100, 130, 70), (1, 384, 1536), (1500, 64, 3), (7, 1, 1), (33, 2048, 5)]

RELATIVE = {"torch": 0.0, "bf16": 2.0**-8, "npu": 2.0**-8, "npu-layer": 2.0**-8, "reference": 0.0}
"""Half a unit in the last place of the format that a backend rounds each input to."""
LARGEST = {"int16": (32767, 32767), "int8": (32767, 127), "w8a8": (255, 127)}
"""Largest integers of x and of a weight, of backends that quantise row by row."""
NORM, SUM = {"int16": 46332}, 256
"""Largest norm of any SUM integers of a row, which are added up in int32: products of two such rows fit."""
FROM_LEAST_TO_LARGEST = {("w8a8", 0)}
"""Backends and sides whose step is (largest - least) of a row, zero included, by that integer."""
SUM_ROUNDING = {"reference": 0.0}


def signed(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounding(name: str, rows: np.ndarray, side: int) -> np.ndarray:
    """Largest possible error of each input: half a step, plus a thousandth of a step for its own rounding."""
    if name == "int4":
        groups = np.abs(np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % 32)]))
        most = groups.reshape(*rows.shape[:-1], -1, 32).max(axis=-1).repeat(32, axis=-1)[..., : rows.shape[-1]]
        # A weight may be cut to 7/8 of the largest; its scale is rounded to float16.
        return 0.501 * most / 127 if side == 0 else most * (1 / 8 + 2.0**-11)
    if name in LARGEST:
        most = np.abs(rows).max(axis=-1, keepdims=True)
        if (name, side) in FROM_LEAST_TO_LARGEST:
            most = rows.max(axis=-1, keepdims=True, initial=0) - rows.min(axis=-1, keepdims=True, initial=0)
        step = most / LARGEST[name][side]
        if name in NORM:
            sums = [rows[..., i : i + SUM] for i in range(0, rows.shape[-1], SUM)]
            norms = [np.linalg.norm(part, axis=-1, keepdims=True) for part in sums]
            step = np.maximum(step, np.max(norms, axis=0) / NORM[name])
        return 0.501 * step * np.ones_like(rows)
    return RELATIVE[name] * np.abs(rows)


def bound(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest possible |error| of a @ b by element, plus the final rounding to float32."""
    off_a, off_b = rounding(name, a, 0), rounding(name, b.swapaxes(-1, -2), 1).swapaxes(-1, -2)
    inputs = np.abs(a) @ off_b + off_a @ np.abs(b) + off_a @ off_b
    sums = (a.shape[-1] * SUM_ROUNDING.get(name, 2.0**-24) + 2.0**-24) * ((np.abs(a) + off_a) @ (np.abs(b) + off_b))
    # A quantised sum is scaled by two numbers that are rounded themselves.
    return inputs + (sums * 3 if name in LARGEST else sums) + 1e-300


EMULATED = Settings(npu="emulated")


@pytest.fixture(params=registry.names())
def backend(request):
    if reason := registry.backend_class(request.param).why_unavailable(EMULATED):
        pytest.skip(reason)
    return registry.create(request.param, EMULATED)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_is_within_the_bound_of_its_arithmetic(backend, shape):
    m, k, n = shape
    x, weight, bias = signed(m, k), signed(n, k, seed=1), signed(n, seed=2)
    y = backend.linear(x, backend.prepare(weight, bias))
    a, b = x.double().numpy(), weight.double().numpy().T
    exact = a @ b + bias.double().numpy()
    allowed = bound(backend.name, a, b) + 2.0**-23 * np.abs(exact)
    assert y.dtype == torch.float32
    assert (np.abs(y.double().numpy() - exact) <= allowed).all()


def test_linear_without_a_bias_and_with_leading_dimensions(backend):
    x, weight = signed(2, 3, 5, 32), signed(8, 32, seed=1)
    y = backend.linear(x, backend.prepare(weight, None))
    assert y.shape == (2, 3, 5, 8)
    a, b = x.double().numpy().reshape(-1, 32), weight.double().numpy().T
    assert (np.abs(y.double().numpy().reshape(-1, 8) - a @ b) <= bound(backend.name, a, b)).all()


def test_matmul_takes_transposed_views(backend):
    a, b = signed(6, 50, 64), signed(6, 40, 64, seed=1).mT
    y = backend.matmul(a, b)
    x, z = a.double().numpy(), b.double().numpy()
    assert (np.abs(y.double().numpy() - x @ z) <= bound(backend.name, x, z)).all()


# Float32 rounds each of 64 products of a score of up to ~5 and each of 90 terms of a mean of up to ~4. For whole
# numbers test_quantized.py derives how wrong results are in the mean; the worst of thousands is some 5 times that.
ATTENTION_ERROR = {
    "torch": 1e-5, "reference": 1e-5, "bf16": 4e-2, "npu": 4e-2, "npu-layer": 4e-2, "int16": 2e-3, "int8": 4e-2,
    "int4": 4e-2, "w8a8": 4e-2,
}  # fmt: skip


def attends_exactly(backend, q, k, v, bias=None):
    scores = q.double() @ k.double().mT * 0.125
    exact = (scores if bias is None else scores + bias.double()).softmax(dim=-1) @ v.double()
    assert (backend.attention(q, k, v, 0.125, bias).double() - exact).abs().max() < ATTENTION_ERROR[backend.name]


def test_fused_attention_equals_its_two_products_and_the_softmax_between(backend):
    attends_exactly(backend, *(signed(2, 3, 90, 64, seed=seed) for seed in range(3)))


def test_attention_takes_views_of_a_joint_projection_and_more_keys_than_queries(backend):
    q = signed(2, 50, 3, 192).chunk(3, dim=-1)[0].transpose(1, 2)
    k, v = (part.transpose(1, 2) for part in signed(2, 71, 3, 192, seed=1).chunk(3, dim=-1)[1:])
    attends_exactly(backend, q, k, v)


def test_a_bias_masks_a_key_or_weighs_it_as_several(backend):
    q, k, v = (signed(1, 2, 40, 64, seed=seed) for seed in range(3))
    bias = torch.zeros(40)
    bias[5], bias[7] = -torch.inf, math.log(4)
    attends_exactly(backend, q, k, v, bias)
    repeated = [7, 7, 7, 7, *(i for i in range(40) if i not in (5, 7))]
    spelled_out = backend.attention(q, k[:, :, repeated], v[:, :, repeated], 0.125)
    assert (backend.attention(q, k, v, 0.125, bias) - spelled_out).abs().max() < 2 * ATTENTION_ERROR[backend.name]


def test_gelu_and_residual_follow_the_product(backend):
    x, weight, bias, residual = signed(5, 64), signed(20, 64, seed=1), signed(20, seed=2), signed(5, 20, seed=3)
    prepared = backend.prepare(weight, bias)
    product = backend.linear(x, prepared)
    # erf is evaluated to 1.5e-7 by the native kernels, and GELU's slope is at most 1.13.
    assert (backend.linear_gelu(x, prepared) - torch.nn.functional.gelu(product)).abs().max() < 1e-5
    assert (backend.linear_add(x, prepared, residual) - (residual + product)).abs().max() < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("positions", [30, 31])
def test_a_convolution_equals_float64(backend, stride, positions):
    x, weight, bias = signed(2, positions, 24), signed(20, 24, 3, seed=1), signed(20, seed=2)
    y = backend.conv_gelu(x, backend.prepare_conv(weight, bias), 3, stride)
    exact = torch.nn.functional.conv1d(x.mT.double(), weight.double(), bias.double(), stride=stride, padding=1)
    assert y.is_contiguous()  # the next site may be another backend's, whose kernels take dense rows
    error = (y.double() - torch.nn.functional.gelu(exact).mT).norm() / exact.norm()
    assert error < (2e-2 if backend.name in ("bf16", "npu", "npu-layer", "int8", "w8a8") else 1e-3)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("keys", [0, 5])
def test_an_encoder_layer_equals_float64(backend, biased, keys):
    """All blocks of a layer, each by the backend itself or composed of its products."""
    d, heads, hidden, n = 64, 2, 96, 40
    bias = signed(n + keys, seed=9) if biased else None
    more = (signed(2, heads, keys, 32, seed=10), signed(2, heads, keys, 32, seed=11)) if keys else None

    def layer(of):
        def weights(out, k, seed):
            return of.prepare(signed(out, k, seed=seed) / k**0.5, signed(out, seed=seed + 1))

        norms = [of.prepare_norm(Norm(1 + 0.1 * signed(d, seed=s), signed(d, seed=s + 1), 1e-5)) for s in (20, 22)]
        qkv, out, fc1, fc2 = weights(3 * d, d, 1), weights(d, d, 3), weights(hidden, d, 5), weights(d, hidden, 7)
        return of.prepare_layer(EncoderLayer(norms[0], qkv, out, norms[1], fc1, fc2, heads, 32**-0.5))

    x, exact = signed(2, n, d), registry.create("reference")
    y = backend.to_host(backend.encoder_layer(backend.to_device(x), layer(backend), bias, more))
    expected = exact.encoder_layer(x, layer(exact), bias, more)
    error = (y - expected).norm() / expected.norm()
    # Six products, each with inputs off by up to half a step (see `rounding`): 2^-8 of bf16, 1/254 of int8, 1/16 of
    # int4's largest.
    coarse = {"bf16", "npu", "npu-layer", "int8", "w8a8"}
    assert error < (6 * 2.0**-8 if backend.name in coarse else 6 * 2.0**-4 if backend.name == "int4" else 6e-4)
    assert error < 1e-5 or backend.name not in ("torch", "reference")


# The seed's five accuracy cases: (M, K, N), standard deviations of a and b, the seed's largest |error|. It does not say
# how its numbers were drawn. At these scales inputs rounded to bf16 stay within its errors, and inputs cut off to bf16,
# which doubles the error, do not: so the bounds detect a slightly wrong tile.
SEED_CASES = {
    "64x64": ((64, 64, 64), 0.16, 0.16, 0.002961),
    "arbitrary": ((100, 130, 70), 0.17, 0.17, 0.003776),
    "Q@K^T": ((1500, 64, 1500), 0.10, 0.10, 0.001493),
    "attn@V": ((1500, 1500, 64), None, 0.75, 0.000518),
    "x@W": ((1500, 512, 512), 0.07, 0.07, 0.001629),
}


def seed_case(name: str) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, float]:
    (m, k, n), a_scale, b_scale, largest = SEED_CASES[name]
    a = signed(m, k).softmax(dim=-1) if a_scale is None else signed(m, k) * a_scale
    b = signed(k, n, seed=1) * b_scale
    return a, b, a.double().numpy() @ b.double().numpy(), largest


@pytest.mark.parametrize("name", SEED_CASES)
def test_the_accuracy_of_the_seed_is_kept(backend, name):
    a, b, exact, largest = seed_case(name)
    assert np.abs(backend.matmul(a, b).double().numpy() - exact).max() <= largest
    if backend.name in ("int8", "int4", "w8a8"):
        return  # weights of 8 bits or 4 are coarser than the seed's bf16; activations, which matmul takes, are finer
    through_linear = backend.linear(a, backend.prepare(b.T.contiguous(), None))
    assert np.abs(through_linear.double().numpy() - exact).max() <= largest


@pytest.mark.parametrize("name", SEED_CASES)
def test_the_bounds_of_the_seed_are_tight_enough_to_notice_truncation(name):
    def cut_off(x: torch.Tensor) -> torch.Tensor:
        return (x.contiguous().view(torch.int32) & -65536).view(torch.float32)

    a, b, exact, largest = seed_case(name)
    assert np.abs((cut_off(a) @ cut_off(b)).double().numpy() - exact).max() > largest


def test_an_unknown_backend_names_the_valid_ones():
    complaint = r"'bf17' \(did you mean 'bf16'\?\); the backends are torch, int16, int8, int4, w8a8, bf16"
    with pytest.raises(UnknownBackend, match=complaint):
        registry.create("bf17")


def test_bf16_rounds_to_nearest_with_ties_to_even():
    ulp = 2.0**-7  # between bf16 neighbours in [1, 2)
    given = torch.tensor([1 + ulp / 2, 1 + 3 * ulp / 2, 1 + ulp * 0.51, -(1 + ulp / 2), 1 + ulp])
    assert round_to_bf16(given).tolist() == [1.0, 1 + 2 * ulp, 1 + ulp, -1.0, 1 + ulp]


def test_a_shape_counts_its_work_and_reads_well():
    assert ProductShape(6, 1500, 64, 1500).multiply_adds == 6 * 1500 * 64 * 1500
    assert str(ProductShape(6, 1500, 64, 1500)) == "6 x (1500, 64) x (64, 1500)"
    assert str(ProductShape(1, 3001, 512, 512)) == "(3001, 512) x (512, 512)"
