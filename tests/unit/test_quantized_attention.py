"""Attention of the native kernels on every instruction set of this processor: overflow, any length, small weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from made_tensors import normal, relative

from tilewhisper.kernels import registry
from tilewhisper.kernels.cpu import build

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)


pytest_plugins = ["native_fixtures"]


@pytest.mark.parametrize("n", [20, 256, 1500])
def test_the_largest_sum_of_correlated_attention_weights_does_not_overflow(instruction_set, backend, n):
    """Values are proportional to their attention weights: by Cauchy-Schwarz the largest sum for their norms."""
    bias, keys = normal(n), torch.zeros(1, 1, n, 64)
    v = bias.softmax(dim=0)[:, None].expand(1, 1, n, 64).contiguous()
    y = backend.attention(torch.zeros(1, 1, 13, 64), keys, v, 1.0, bias)
    exact = bias.double().softmax(dim=0).square().sum()
    assert ((y - exact).abs() < (1e-3 if backend.attention_bits == 16 else 2e-2) * exact).all()


@pytest.mark.parametrize("n", [1, 33, 1500, 20_001])
def test_the_largest_possible_sum_of_attention_does_not_overflow(instruction_set, backend, n):
    """All keys are equal, so that every weight is the largest; all values are the largest of their column."""
    q, k = torch.full((1, 1, 13, 64), 2.0), torch.full((1, 1, n, 64), -2.0)
    v = torch.full((1, 1, n, 64), -7.0)
    assert torch.allclose(backend.attention(q, k, v, 1.0), torch.tensor(-7.0), rtol=1e-5)


def test_a_key_with_all_the_attention_weight_gives_its_value(instruction_set, backend):
    q = torch.full((1, 1, 5, 64), 3.0)
    k, v = torch.zeros(1, 1, 1500, 64), normal(1, 1, 1500, 64)
    k[:, :, 777] = 3.0
    step = v.abs().amax(dim=2) / 127
    if backend.attention_bits == 16:
        norms = torch.stack([part.norm(dim=2) for part in v.split(256, dim=2)])
        step = torch.maximum(v.abs().amax(dim=2) / 32767, norms.amax(dim=0) / 46332)
    assert ((backend.attention(q, k, v, 0.125) - v[:, :, 777:778]).abs() <= 0.51 * step[:, :, None]).all()


@pytest.mark.parametrize("positions", [1, 2, 301, 1500])
def test_attention_over_any_number_of_positions(instruction_set, backend, positions):
    q, k, v = (normal(1, 2, n, 64, seed=seed) for seed, n in enumerate((min(positions, 200), positions, positions)))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    # 16 bits: values with 46332 steps to the norm of 256 numbers have an error of 0.29 * 16 / 46332 = 1e-4 of their
    # size, and so has a mean of n values, since it shrinks as its error does; weights and scores add as much each.
    # 8 bits: the error of values with 127 steps is 7.5e-3, the error of scores of 64 products 0.29 * sqrt((2.4 / 127)^2
    # + (4.8 / 255)^2) = 7.7e-3, the error of weights as large; weights are rounded to 255ths of the largest, some e^3
    # times the mean of 1500: 0.29 to 0.5 of 255 / e^3.
    assert relative(backend.attention(q, k, v, 0.125), exact) < (4e-4 if backend.attention_bits == 16 else 3e-2)


def test_many_small_softmax_weights_of_8_bits_keep_their_sum(instruction_set):
    """A key has a weight of 1, and 1500 have 1/1000 each: by rounding alone these would become 0."""
    backend, n = registry.create("w8a8"), 1501
    q, k, v = torch.zeros(1, 1, 3, 64), torch.zeros(1, 1, n, 64), torch.ones(1, 1, n, 64)
    v[:, :, 700] = -1.0
    bias = torch.full((n,), -math.log(1000))
    bias[700] = 0.0
    y = backend.attention(q, k, v, 0.125, bias)
    assert (y - (1.5 - 1) / (1.5 + 1)).abs().max() < 0.02


@pytest.mark.parametrize("rows", [1, 13, 300])
@pytest.mark.parametrize("biased", [True, False])
def test_projected_keys_and_values_are_the_products_packed(instruction_set, backend, rows, biased):
    """In one pass, head by head, with the same bits as the product followed by packing."""
    heads, k = 3, 65
    states, weight, bias = normal(1, rows, k), normal(2 * heads * 32, k, seed=1), normal(2 * heads * 32, seed=2)
    prepared = backend.prepare_cross_kv(weight, bias if biased else None)
    projected = backend.project_cross_kv(states, prepared, heads)
    both = backend.linear(states, prepared).view(1, rows, 2, heads, 32)
    packed = backend.pack_cross_kv(both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(projected.packed, packed.packed, strict=True))
    assert projected.n == rows
