"""The native kernels on every instruction set this processor has: sums that cannot overflow, any shape, any threads.

test_backends.py holds the backends against their error bounds; here is what is peculiar to this arithmetic.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Norm
from tilewhisper.kernels.cpu import build, quantized
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.kernels.decoder import DecoderLayer

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)

build.load()
native = torch.ops.tilewhisper_native

SHAPES = [(1, 1, 1), (3, 5, 7), (11, 33, 17), (13, 256, 16), (13, 257, 31), (97, 1031, 33), (1501, 65, 48)]


@pytest.fixture(params=build.instruction_sets())
def instruction_set(request):
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


@pytest.fixture(params=["int16", "int8"])
def backend(request):
    return registry.create(request.param)


@pytest.fixture(params=["int16", "int8", "w8a8"])
def any_backend(request):
    return registry.create(request.param)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("k", [2, 255, 256, 257, 512, 4096])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_possible_sum_of_a_product_fits(instruction_set, any_backend, k, sign):
    """Every number the largest its row allows, all products of one sign: the exact sum, up to float32's rounding."""
    x, weight = torch.full((13, k), 3.0), torch.full((17, k), sign * 0.5)
    y = any_backend.linear(x, any_backend.prepare(weight, None))
    assert torch.allclose(y, torch.full((13, 17), sign * 1.5 * k), rtol=1e-5)


@pytest.mark.parametrize("k", [256, 4096])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_possible_sum_of_rows_of_any_shape_fits(instruction_set, any_backend, k, sign):
    """Rows in proportion to a weight's: no others of their norms have a larger sum."""
    weight = normal(17, k)
    x = sign * 5 * weight[:13]
    x[2], x[2, 3] = 0.01, 9.0  # one number far above all others
    weight[2] = sign * x[2]
    y, exact = any_backend.linear(x, any_backend.prepare(weight, None)), x.double() @ weight.double().T
    assert relative(y.diagonal(), exact.diagonal()) < (1e-4 if any_backend.name == "int16" else 5e-3)


@pytest.mark.parametrize("n", [20, 256, 1500])
def test_the_largest_possible_sums_of_attention_of_any_shape_fit(instruction_set, backend, n):
    """Values in proportion to the weights that they are given."""
    bias, keys = normal(n), torch.zeros(1, 1, n, 64)
    v = bias.softmax(dim=0)[:, None].expand(1, 1, n, 64).contiguous()
    y = backend.attention(torch.zeros(1, 1, 13, 64), keys, v, 1.0, bias)
    exact = bias.double().softmax(dim=0).square().sum()
    assert ((y - exact).abs() < (1e-3 if backend.attention_bits == 16 else 2e-2) * exact).all()


@pytest.mark.parametrize("n", [1, 33, 1500, 20_001])
def test_the_largest_possible_sums_of_attention_fit(instruction_set, backend, n):
    """Keys all alike, so that every weight is the largest there is; values all the largest of their column."""
    q, k = torch.full((1, 1, 13, 64), 2.0), torch.full((1, 1, n, 64), -2.0)
    v = torch.full((1, 1, n, 64), -7.0)
    assert torch.allclose(backend.attention(q, k, v, 1.0), torch.tensor(-7.0), rtol=1e-5)


def test_one_key_that_takes_all_is_taken_whole(instruction_set, backend):
    q = torch.full((1, 1, 5, 64), 3.0)
    k, v = torch.zeros(1, 1, 1500, 64), normal(1, 1, 1500, 64)
    k[:, :, 777] = 3.0
    step = v.abs().amax(dim=2) / 127
    if backend.attention_bits == 16:
        norms = torch.stack([part.norm(dim=2) for part in v.split(256, dim=2)])
        step = torch.maximum(v.abs().amax(dim=2) / 32767, norms.amax(dim=0) / 46332)
    assert ((backend.attention(q, k, v, 0.125) - v[:, :, 777:778]).abs() <= 0.51 * step[:, :, None]).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "error"), [("int16", 3e-4), ("int8", 1.2e-2), ("w8a8", 2e-2)])
def test_shapes_that_fit_no_block(instruction_set, shape, name, error):
    backend, (m, k, n) = registry.create(name), shape
    x, weight, bias, residual = normal(m, k), normal(n, k, seed=1), normal(n, seed=2), normal(m, n, seed=3)
    prepared = backend.prepare(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    assert relative(backend.linear(x, prepared), exact) < error
    assert relative(backend.linear_gelu(x, prepared), F.gelu(exact)) < error
    assert relative(backend.linear_add(x, prepared, residual), exact + residual.double()) < error


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (1, 37), (3, 61)])
@pytest.mark.parametrize(("k", "hidden"), [(48, 192), (37, 70)])
@pytest.mark.parametrize(("name", "error"), [("int16", 3e-4), ("int8", 1.2e-2), ("w8a8", 2e-2)])
def test_a_feed_forward_in_one_pass_is_its_operations(instruction_set, name, error, batch, rows, k, hidden):
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
    assert (
        relative(y, piecewise.double()) < error / 3
    )  # a step's rounding may turn over where norms differ in a last bit


@pytest.mark.parametrize(("name", "error"), [("int16", 1e-3), ("int8", 2e-2)])
@pytest.mark.parametrize("rows", [1, 13, 48, 49, 300])
def test_a_product_for_windows_is_a_product(instruction_set, name, error, rows):
    backend, x, weight, bias = registry.create(name), normal(2, rows, 65), normal(37, 65, seed=1), normal(37, seed=2)
    y = backend.linear(x, backend.prepare_cross_kv(weight, bias))
    assert relative(y, F.linear(x.double(), weight.double(), bias.double())) < error


def test_bytes_keep_zero_and_what_lies_on_one_side_of_it(instruction_set):
    """What GELU leaves: many zeros, and hardly anything below. A row's 255 steps lie where its numbers are."""
    backend, eye = registry.create("w8a8"), torch.eye(7)
    x = torch.tensor([[0.0, 5.1, 0.02, 2.55, -0.1, 0, 0], [0.0] * 7, [-3.0, 0, 0, 0, 0, 0, -1.5], [7.0] * 7])
    y = backend.linear(x, backend.prepare(eye, None))
    assert (y[x == 0].abs() < 1e-6).all()
    assert ((y - x).abs() <= 0.51 * torch.tensor([5.2, 0, 3.0, 7.0])[:, None] / 255 + 1e-6).all()


@pytest.mark.parametrize("positions", [1, 2, 1499, 1500])
def test_attention_over_any_number_of_positions(instruction_set, backend, positions):
    q, k, v = (normal(1, 2, positions, 64, seed=seed) for seed in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    # Values of 46332 steps to the norm of 256: 0.29 * 16 / 46332 = 1e-4 of a value's size, as much a mean of n values
    # as the mean itself shrinks, and as much again of weights and of scores. Values of 127 steps 7.5e-3, and scores of
    # 64 products of 8 bits are wrong by 0.29 * sqrt((2.4 / 127)^2 + (4.8 / 255)^2) = 7.7e-3, and so are weights; these
    # are rounded to 255ths of the largest, some e^3 times the mean of 1500: 0.29 to 0.5 of 255 / e^3.
    assert relative(backend.attention(q, k, v, 0.125), exact) < (4e-4 if backend.attention_bits == 16 else 3e-2)


def test_many_small_weights_of_8_bits_keep_their_share(instruction_set):
    """One key with a weight of 1, and 1500 of 1/1000 each, with values of their own: rounded, all but one are lost."""
    backend, n = registry.create("w8a8"), 1501
    q, k, v = torch.zeros(1, 1, 3, 64), torch.zeros(1, 1, n, 64), torch.ones(1, 1, n, 64)
    v[:, :, 700] = -1.0
    bias = torch.full((n,), -math.log(1000))
    bias[700] = 0.0
    y = backend.attention(q, k, v, 0.125, bias)
    assert (y - (1.5 - 1) / (1.5 + 1)).abs().max() < 0.02


@pytest.mark.parametrize("rows", [1, 13, 300])
@pytest.mark.parametrize("biased", [True, False])
def test_what_is_heard_is_the_products_packed(instruction_set, backend, rows, biased):
    """In one pass, head by head, and to the bit what the product and the packing give one after the other."""
    heads, k = 3, 65
    states, weight, bias = normal(1, rows, k), normal(2 * heads * 32, k, seed=1), normal(2 * heads * 32, seed=2)
    prepared = backend.prepare_cross_kv(weight, bias if biased else None)
    heard = backend.project_cross_kv(states, prepared, heads)
    both = backend.linear(states, prepared).view(1, rows, 2, heads, 32)
    kept = backend.pack_cross_kv(both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2))
    assert all(torch.equal(one, other) for one, other in zip(heard.packed, kept.packed, strict=True))
    assert heard.n == rows


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("fresh", [1, 4])
def test_self_attention_of_a_step_is_causal_attention_over_the_cache(instruction_set, batch, fresh):
    heads, context, length = 3, 40, 17
    keys, values = normal(batch, heads, context, 64), normal(batch, heads, context, 64, seed=1)
    before = keys.clone(), values.clone()
    qkv = normal(batch, fresh, 3 * heads * 64, seed=2)
    y = native.self_attention(qkv, keys, values, [length] * len(qkv), 0.125)
    q, k, v = (part.view(batch, fresh, heads, 64).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    for cache, old, new in ((keys, before[0], k), (values, before[1], v)):
        assert torch.equal(cache[:, :, length : length + fresh], new)
        cache[:, :, length : length + fresh] = old[:, :, length : length + fresh]
        assert torch.equal(cache, old)
        cache[:, :, length : length + fresh] = new
    visible = torch.ones(fresh, length + fresh, dtype=torch.bool).tril(length)
    seen = (t[:, :, : length + fresh].double() for t in (keys, values))
    exact = F.scaled_dot_product_attention(q.double(), *seen, attn_mask=visible, scale=0.125)
    assert relative(y, exact.transpose(1, 2).flatten(2)) < 1e-6


def test_rows_of_a_batch_may_have_caches_of_different_lengths(instruction_set):
    heads, lengths = 2, [0, 9, 4]
    caches = normal(3, heads, 12, 64), normal(3, heads, 12, 64, seed=1)
    qkv = normal(3, 2, 3 * heads * 64, seed=2)
    for self_attention in (native.self_attention, TorchBackend().self_attention):
        alone = [
            self_attention(qkv[i : i + 1], *(cache[i : i + 1].clone() for cache in caches), [length], 0.125)
            for i, length in enumerate(lengths)
        ]
        y = self_attention(qkv, *(cache.clone() for cache in caches), lengths, 0.125)
        assert relative(y, torch.cat(alone)) < 1e-6


def decoder_layer(backend, d: int, seed: int = 0) -> DecoderLayer:
    def norm(number):
        return Norm(1 + normal(d, seed=seed + number) / 10, normal(d, seed=seed + number + 1), 1e-5)

    def product(n, k, number):
        return backend.prepare(normal(n, k, seed=seed + number) / k**0.5, normal(n, seed=seed + number + 1) / 10)

    sizes = {
        "qkv": (3 * d, d),
        "own_out": (d, d),
        "cross_query": (d, d),
        "cross_out": (d, d),
        "fc1": (4 * d, d),
        "fc2": (d, 4 * d),
    }
    products = {name: product(*size, 10 * i) for i, (name, size) in enumerate(sizes.items())}
    return DecoderLayer(own_norm=norm(1), cross_norm=norm(3), final_norm=norm(5), scale=0.125, **products)


@pytest.mark.parametrize(
    ("lengths", "new"),
    [([0], [1]), ([7], [3]), ([0], [40]), ([3, 0, 9, 9, 1], [1, 1, 1, 1, 1]), ([3, 0, 9, 9, 1], [1, 4, 40, 1, 3])],
)
def test_a_decoders_layers_in_one_call_are_their_operations_one_by_one(instruction_set, backend, lengths, new):
    heads, batch = 3, len(lengths)
    windows = [
        (normal(1, heads, n, 64, seed=n), normal(1, heads, n, 64, seed=n + 1), bias)
        for n, bias in ((33, None), (20, normal(20)), (33, None), (5, None))
    ]
    places = [0, 1, 1, 2, 3][:batch]  # two rows share a window
    x = normal(sum(new), heads * 64)
    results = []
    for run in (backend, TorchBackend()):
        kept = [run.pack_cross_kv(*window) for window in windows]
        keys, values = normal(2, batch, heads, 50, 64, seed=2), normal(2, batch, heads, 50, 64, seed=3)
        layers = run.prepare_layers([decoder_layer(run, heads * 64), decoder_layer(run, heads * 64, seed=100)])
        y = run.decoder_layers(x, layers, keys, values, lengths, new, [(kept[i], kept[i]) for i in places])
        results.append((y, keys, values))
    # as its products, of which 8 follow one another; int16 has finer left sides in a step: 4.1e-4 in place of 5.9e-4
    bound = 2.5e-2 if backend.bits == 8 else 4.8e-4
    for ours, exact in zip(*results, strict=True):
        assert relative(ours, exact) < bound


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_possible_sums_of_a_step_fit(instruction_set, backend, sign):
    """Every number the largest its row allows: norms give their bias alone, and each product has equal columns."""
    d = 192
    results = []
    for run in (backend, TorchBackend()):
        layer = decoder_layer(run, d)
        norm = Norm(torch.zeros(d), torch.full((d,), 3.0), 1e-5)
        sizes = {"qkv": (3 * d, d), "own_out": (d, d), "cross_query": (d, d), "cross_out": (d, d)}
        sizes |= {"fc1": (4 * d, d), "fc2": (d, 4 * d)}
        products = {
            name: run.prepare(torch.full(size, sign / size[1]), torch.zeros(size[0])) for name, size in sizes.items()
        }
        layer = replace(layer, own_norm=norm, cross_norm=norm, final_norm=norm, **products)
        window = run.pack_cross_kv(torch.ones(1, 3, 20, 64), torch.full((1, 3, 20, 64), 2.0))
        caches = torch.zeros(1, 2, 3, 8, 64), torch.zeros(1, 2, 3, 8, 64)
        layers, windows = run.prepare_layers([layer]), [(window,)] * 2
        results.append(run.decoder_layers(torch.ones(2, d), layers, *caches, [0, 0], [1, 1], windows))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 5, 4096, 51865])
@pytest.mark.parametrize("count", [1, 6])
def test_the_likeliest_scores_are_torchs(instruction_set, backend, n, count):
    scores = normal(3, n, seed=n) * 4
    scores[:, ::7] = float("-inf")
    scores[2, n // 2 :] = float("-inf")
    count = min(count, n)
    values, tokens, total = backend.top_k(scores, count)
    exact = TorchBackend().top_k(scores.double(), count)
    assert torch.equal(values, exact[0].float())
    allowed = values.isfinite()  # of equals, any may stand there
    assert torch.equal(tokens[allowed], exact[1][allowed])
    torch.testing.assert_close(total, exact[2].float(), rtol=1e-5, atol=1e-5)


@pytest.fixture
def any_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_decoders_layers_have_the_same_bits_on_any_number_of_threads(backend, any_threads):
    layers, x = backend.prepare_layers([decoder_layer(backend, 192, seed) for seed in (0, 100)]), normal(2, 192)
    window = backend.pack_cross_kv(normal(1, 3, 30, 64), normal(1, 3, 30, 64, seed=1))
    results = []
    for threads in (1, 2, 3):
        any_threads(threads)
        for _ in range(20):
            caches = torch.zeros(2, 2, 3, 8, 64), torch.zeros(2, 2, 3, 8, 64)
            results.append(backend.decoder_layers(x, layers, *caches, [0, 0], [1, 1], [(window, window)] * 2))
    assert all(torch.equal(one, results[0]) for one in results)


def test_native_code_lets_go_of_a_window_with_the_last_that_is_kept_of_it(backend):
    layers, x = backend.prepare_layers([decoder_layer(backend, 64)]), normal(1, 64)
    caches = torch.zeros(1, 1, 1, 8, 64), torch.zeros(1, 1, 1, 8, 64)
    first, second = (backend.pack_cross_kv(normal(1, 1, n, 64), normal(1, 1, n, 64)) for n in (30, 20))
    gone, before = first.handle.number, backend.decoder_layers(x, layers, *caches, [0], [1], [(second,)])
    del first
    assert torch.equal(backend.decoder_layers(x, layers, *caches, [0], [1], [(second,)]), before)
    with pytest.raises(RuntimeError, match=f"nothing of this kind is held as number {gone}"):
        native.decoder_layers(x, [layers[0].number], *caches, [0], [1], [gone], [1])
    with pytest.raises(RuntimeError, match="nothing of this kind"):
        native.decoder_layers(x, [second.handle.number], *caches, [0], [1], [second.handle.number], [1])


def everything(backend) -> list[torch.Tensor]:
    """One result of each kernel, at shapes whose work is shared out by rows and by columns."""
    results = []
    for m, k, n in [(1, 100, 700), (7, 33, 500), (500, 64, 33)]:
        prepared = backend.prepare(normal(n, k, seed=1), normal(n, seed=2))
        x = normal(m, k)
        results += [
            *prepared[:2],
            backend.linear_gelu(x, prepared),
            backend.linear_add(x, prepared, normal(m, n, seed=3)),
        ]
    q, k, v = (normal(1, 3, 201, 64, seed=seed) for seed in range(3))
    results.append(backend.attention(q, k, v, 0.125))
    results += backend.project_cross_kv(normal(1, 201, 64), backend.prepare_cross_kv(normal(192, 64), None), 3).packed
    results.append(native.self_attention(normal(1, 2, 576), k.contiguous(), v.contiguous(), [50], 0.125))
    return results


def test_one_thread_and_two_give_the_same_bits(instruction_set, backend, any_threads):
    one_thread, two_threads = [], []
    for threads, results in ((1, one_thread), (2, two_threads)):
        any_threads(threads)
        results += everything(backend)
    assert all(torch.equal(one, two) for one, two in zip(one_thread, two_threads, strict=True))


def test_instruction_sets_agree_but_for_float32s_own_rounding(backend):
    before, results = native.instruction_set(), []
    try:
        for name in build.instruction_sets():
            native.use_instruction_set(name)
            results.append(everything(backend))
    finally:
        native.use_instruction_set(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            if one.dtype == torch.float32:
                # A row's step is rounded alike everywhere, but a number half way between two steps may not be.
                assert relative(other, one.double()) < 1e-4
            else:
                assert (one.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_stays_none_and_stays_in_its_row(instruction_set, backend, bad):
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


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda w: quantized.linear(normal(1, 2, 9), w), "9 columns, which the weight does not fit"),
        (lambda w: native.linear(normal(2, 8), *w, False, None, None, None, 0.0), "must have 3 dimensions"),
        (lambda w: quantized.linear(normal(1, 2, 8).double(), w), "must be float32"),
        (lambda w: quantized.linear(normal(1, 2, 8), w, residual=normal(1, 2, 15)), "must be dense and hold 32"),
        (
            lambda w: quantized.linear(normal(1, 2, 8), w, norm=Norm(normal(7), normal(8), 1e-5)),
            "must be dense and hold 8",
        ),
        (lambda w: native.pack_weight(normal(4, 4), 12), "bits must be 16 or 8"),
        (lambda w: native.pack_keys_values(normal(1, 1, 5, 24), normal(1, 1, 5, 24), 16), "multiple of 16"),
        (
            lambda w: native.self_attention(normal(1, 2, 192), *(torch.zeros(1, 1, 5, 64),) * 2, [4], 1.0),
            "do not fit a cache",
        ),
        (
            lambda w: native.decoder_layers(normal(1, 64), [0], *(torch.zeros(1, 1, 1, 5, 64),) * 2, [0], [1], [], []),
            "nothing of this kind is held as number 0",
        ),
        (lambda w: native.use_instruction_set("mmx"), "no instruction set 'mmx'"),
    ],
)
def test_what_the_kernels_cannot_take_is_refused(call, complaint):
    with pytest.raises(RuntimeError, match=complaint):
        call(quantized.pack(normal(16, 8), None, 16))


@pytest.mark.parametrize("keep", [1, 6])
def test_settled_scores_are_exact_where_a_token_may_be_one_of_the_likeliest_of_its_part(keep, instruction_set, backend):
    weight, x, split = normal(3000, 96), normal(4, 96, seed=1), 2500
    x[0, 7], weight[5] = 30.0, weight[5] * 3  # a row and a token of coarser steps than others
    vocabulary = backend.prepare_lm_head(weight)
    exact, scores = (x.double() @ weight.double().T), backend.logits(x, vocabulary)
    forbidden = exact[1].argmax()
    scores[1, forbidden] = exact[1, forbidden] = -math.inf
    scores[2, split:] = exact[2, split:] = -math.inf
    scores[3, split + 3 :] = exact[3, split + 3 :] = -math.inf
    rough = scores.clone()
    backend.rescore(scores, x, vocabulary, split, keep)
    for part in (slice(0, split), slice(split, None)):
        least = exact[:, part].topk(keep).values[:, -1:]
        near = (exact[:, part] >= least - 0.05) & exact[:, part].isfinite()
        assert near.any() and ((scores[:, part] - exact[:, part])[near].abs() < 1e-4).all()
        assert (scores[:, part].argmax(dim=1) == exact[:, part].argmax(dim=1)).all()
        best = (each[:, part].topk(keep).values for each in (scores.double(), exact))
        torch.testing.assert_close(*best, rtol=0, atol=1e-4)
    assert (scores[2, split:] == -math.inf).all() and scores[1, forbidden] == -math.inf
    assert (scores != rough).sum() < 0.02 * rough.numel()
