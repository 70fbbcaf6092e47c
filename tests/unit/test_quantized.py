"""Products of the native kernels on every instruction set of this processor: overflow, any shape, exact zeros, NaN.

test_backends.py compares the backends with their error bounds; these tests are specific to quantised arithmetic.
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_caches import paged
from made_tensors import normal, relative

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, EncoderLayer, Norm
from tilewhisper.kernels.cpu import build, quantized

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)


pytest_plugins = ["native_fixtures"]
native = torch.ops.tilewhisper_native


@pytest.mark.parametrize("k", [2, 255, 256, 257, 512, 4096])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_possible_sum_of_a_product_does_not_overflow(instruction_set, any_backend, k, sign):
    """All numbers are the largest of their row, all products have one sign: exact, up to float32's rounding."""
    x, weight = torch.full((13, k), 3.0), torch.full((17, k), sign * 0.5)
    y = any_backend.linear(x, any_backend.prepare(weight, None))
    assert torch.allclose(y, torch.full((13, 17), sign * 1.5 * k), rtol=1e-5)


@pytest.mark.parametrize("k", [256, 4096])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sum_of_correlated_rows_does_not_overflow(instruction_set, any_backend, k, sign):
    """Rows are proportional to a weight's rows, which by Cauchy-Schwarz is the largest sum for their norms."""
    weight = normal(17, k)
    x = sign * 5 * weight[:13]
    x[2], x[2, 3] = 0.01, 9.0  # one number far above all others
    weight[2] = sign * x[2]
    y, exact = any_backend.linear(x, any_backend.prepare(weight, None)), x.double() @ weight.double().T
    error = {"int16": 1e-4, "int4": 2e-2}.get(any_backend.name, 5e-3)
    assert relative(y.diagonal(), exact.diagonal()) < error


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(1, 120), st.integers(1, 700), st.integers(1, 70)))
@example((1, 1, 1))
@example((13, 257, 31))
@example((97, 1031, 33))
@example((1501, 65, 48))
@pytest.mark.parametrize(("name", "error"), [("int16", 3e-4), ("int8", 1.2e-2), ("int4", 0.13), ("w8a8", 2e-2)])
def test_products_of_any_shape(instruction_set, name, error, shape):
    backend, (m, k, n) = registry.create(name), shape
    x, weight, bias, residual = normal(m, k), normal(n, k, seed=1), normal(n, seed=2), normal(m, n, seed=3)
    size = float(x.norm() * weight.norm()) / k**0.5  # of the product, which may be near zero where it is small
    prepared = backend.prepare(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    assert (backend.linear(x, prepared) - exact).norm() < error * size
    assert (backend.linear_gelu(x, prepared) - F.gelu(exact)).norm() < error * size
    assert (backend.linear_add(x, prepared, residual) - (exact + residual)).norm() < error * size


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (1, 37), (3, 61)])
@pytest.mark.parametrize(("k", "hidden"), [(48, 192), (37, 70)])
@pytest.mark.parametrize(("name", "error"), [("int16", 3e-4), ("int8", 1.2e-2), ("int4", 0.13), ("w8a8", 2e-2)])
def test_feed_forward_equals_its_operations(instruction_set, name, error, batch, rows, k, hidden):
    backend, x = registry.create(name), normal(batch, rows, k)
    norm = Norm(1 + normal(k, seed=1) / 10, normal(k, seed=2), 1e-5)
    weights = [
        (normal(hidden, k, seed=3) / k**0.5, normal(hidden, seed=4)),
        (normal(k, hidden, seed=5), normal(k, seed=6)),
    ]
    fc1, fc2 = (backend.prepare(*weight) for weight in weights)
    normed = F.layer_norm(x.double(), (k,), norm.weight.double(), norm.bias.double(), norm.eps)
    exact = F.linear(normed, weights[0][0].double(), weights[0][1].double())
    assert relative(backend.norm_linear(x, norm, fc1), exact) < error
    exact = x + F.linear(F.gelu(exact), weights[1][0].double(), weights[1][1].double())
    y = backend.feed_forward(x, norm, fc1, fc2)
    assert y.shape == x.shape and relative(y, exact) < 1.5 * error  # of two products
    piecewise = backend.linear_add(backend.linear_gelu(norm(x), fc1), fc2, x)
    # a number between two steps may be rounded the other way where norms differ in their last bit
    assert relative(y, piecewise.double()) < error / 3


@pytest.mark.parametrize(("name", "error"), [("int16", 1e-3), ("int8", 2e-2), ("int4", 2e-2)])
@pytest.mark.parametrize("rows", [1, 13, 48, 49, 300])
def test_the_cross_attention_projection_is_a_product(instruction_set, name, error, rows):
    backend: Any = registry.create(name)
    x, weight, bias = normal(2, rows, 65), normal(37, 65, seed=1), normal(37, seed=2)
    y = backend.linear(x, backend.prepare_cross_kv(weight, bias))
    assert relative(y, F.linear(x.double(), weight.double(), bias.double())) < error


def test_activations_of_8_bits_keep_zero_exact(instruction_set):
    """As after GELU: many zeros, and few negative numbers. A row's 255 steps go from its minimum to its maximum."""
    backend, eye = registry.create("w8a8"), torch.eye(7)
    x = torch.tensor([[0.0, 5.1, 0.02, 2.55, -0.1, 0, 0], [0.0] * 7, [-3.0, 0, 0, 0, 0, 0, -1.5], [7.0] * 7])
    y = backend.linear(x, backend.prepare(eye, None))
    assert (y[x == 0].abs() < 1e-6).all()
    assert ((y - x).abs() <= 0.51 * torch.tensor([5.2, 0, 3.0, 7.0])[:, None] / 255 + 1e-6).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_make_their_row_nan_and_no_other(instruction_set, backend, bad):
    x, prepared = normal(20, 40), backend.prepare(normal(18, 40, seed=1), None)
    x[3, 39] = bad
    y = backend.linear(x, prepared)
    assert y[3].isnan().all() and y[[i for i in range(20) if i != 3]].isfinite().all()
    q, k, v = (normal(1, 1, 30, 64, seed=seed) for seed in range(3))
    q[0, 0, 4, 63] = bad
    y = backend.attention(q, k, v, 0.125)
    assert y[0, 0, 4].isnan().all() and y[0, 0, [i for i in range(30) if i != 4]].isfinite().all()
    k[0, 0, 29, 0] = bad
    assert backend.attention(q, k, v, 0.125).isnan().all()


def test_rows_of_zeros_are_zeros(instruction_set, backend):
    prepared = backend.prepare(torch.cat([torch.zeros(1, 40), normal(5, 40)]), None)
    y = backend.linear(torch.cat([torch.zeros(1, 40), normal(2, 40)]), prepared)
    assert (y[0] == 0).all() and (y[:, 0] == 0).all() and (y[1:, 1:] != 0).all()


def result_of_each_kernel(backend) -> list[torch.Tensor]:
    """One result of each kernel, at shapes whose work is divided by rows and by columns."""
    results = []
    for m, k, n in [(1, 100, 700), (7, 33, 500), (500, 64, 33)]:
        prepared = backend.prepare(normal(n, k, seed=1), normal(n, seed=2))
        x = normal(m, k)
        results += [
            *prepared[:2],
            backend.linear_gelu(x, prepared),
            backend.linear_add(x, prepared, normal(m, n, seed=3)),
        ]
    q, keys, values = (normal(1, 3, 201, 64, seed=seed) for seed in range(3))
    results.append(backend.attention(q, keys, values, 0.125))
    results += backend.project_cross_kv(normal(1, 201, 64), backend.prepare_cross_kv(normal(192, 64), None), 3).packed
    caches = paged(torch.stack([keys, values])[None], [50], 2)
    results.append(backend.self_attention(normal(1, 2, 576), caches, 0, 0.125))
    return results


def test_one_thread_and_two_give_the_same_bits(instruction_set, backend, set_threads):
    one_thread, two_threads = [], []
    for threads, results in ((1, one_thread), (2, two_threads)):
        set_threads(threads)
        results += result_of_each_kernel(backend)
    assert all(torch.equal(one, two) for one, two in zip(one_thread, two_threads, strict=True))


def test_instruction_sets_agree_within_float32_rounding(backend):
    before, results = native.instruction_set(), []
    try:
        for name in build.instruction_sets():
            native.use_instruction_set(name)
            results.append(result_of_each_kernel(backend))
    finally:
        native.use_instruction_set(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            if one.dtype == torch.float32:
                # A row's step is rounded equally everywhere, but a number half way between two steps may not be.
                assert relative(other, one.double()) < 1e-4
            else:
                assert (one.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["int8", "int4", "w8a8"])
def test_sums_of_integers_have_the_same_bits_with_every_wide_instruction_set(name):
    """Only sums of floating-point numbers depend on the number of lanes: here, none is taken along a row."""
    backend, before, results = registry.create(name), native.instruction_set(), []
    x, weight = normal(29, 515), normal(70, 515, seed=1)
    try:
        for each in build.instruction_sets():
            if each != "portable":  # without fused multiply-adds, some products are rounded twice
                native.use_instruction_set(each)
                results.append(backend.linear_gelu(x, backend.prepare(weight, None)))
    finally:
        native.use_instruction_set(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda w: quantized.linear(normal(1, 2, 9), w), "must fit inputs of 9 columns"),
        (lambda w: native.linear(normal(2, 8), *w, False, None, None, None, 0.0), "x must have 3 dimensions, got 2"),
        (lambda w: quantized.linear(normal(1, 2, 8).double(), w), "must be float32"),
        (
            lambda w: quantized.linear(normal(1, 2, 8), w, residual=normal(1, 2, 15)),
            "residual must be contiguous with 32 numbers, got 30",
        ),
        (
            lambda w: quantized.linear(normal(1, 2, 8), w, norm=Norm(normal(7), normal(8), 1e-5)),
            "the norm's weight must .* 8 numbers, got 7",
        ),
        (lambda w: native.pack_weight(normal(4, 4), 12), "bits must be 16 or 8, got 12"),
        (lambda w: native.pack_keys_values(normal(1, 1, 5, 24), normal(1, 1, 5, 24), 16), "multiple of 16"),
        (
            lambda w: native.self_attention(normal(1, 2, 192), [normal(1, 2, 1, 3, 5, 64)], [2], [4], 0, 1.0),
            "a text of 6 tokens must have 2 pages",
        ),
        (
            lambda w: native.self_attention(normal(1, 2, 192), [normal(1, 2, 1, 3, 5, 64)], [0, 3], [4], 0, 1.0),
            "a page must be one of 3, got 3",
        ),
        (
            lambda w: native.decoder_layers(normal(1, 64), [0], [normal(1, 2, 1, 1, 5, 64)], [0], [0], [1], [], []),
            "0 is not the handle of a decoder layer",
        ),
        (lambda w: native.use_instruction_set("mmx"), "must be one of .*, got 'mmx'"),
    ],
)
def test_wrong_arguments_are_refused(call, complaint):
    with pytest.raises(RuntimeError, match=complaint):
        call(quantized.pack(normal(16, 8), None, 16))


@pytest.mark.parametrize("positions", [1, 47, 131])
def test_a_whole_encoder_layer_has_the_bits_of_its_blocks(instruction_set, any_backend, positions):
    d, hidden, heads = 64, 80, 2
    norms = [Norm(1 + 0.1 * normal(d, seed=seed), normal(d, seed=seed + 1), 1e-5) for seed in (0, 2)]
    qkv, out, fc1, fc2 = (
        any_backend.prepare(normal(n, k, seed=n) / k**0.5, normal(n, seed=k))
        for n, k in ((3 * d, d), (d, d), (hidden, d), (d, hidden))
    )
    layer = EncoderLayer(norms[0], qkv, out, norms[1], fc1, fc2, heads, 32**-0.5)
    x, bias = normal(2, positions, d, seed=9), normal(positions, seed=10)
    whole = any_backend.encoder_layer(x, any_backend.prepare_layer(layer), bias)
    assert torch.equal(whole, Backend.encoder_layer(any_backend, x, layer, bias))
