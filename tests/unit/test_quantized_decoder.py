"""A decode step of the native kernels on every instruction set of this processor: caches, layers, threads, handles."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_caches import dense, paged
from made_tensors import normal, relative

from tilewhisper.kernels.base import Norm
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.kernels.decoder import DecoderLayer, RowsInFile
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.mapped_file import MappedFile

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)


pytest_plugins = ["native_fixtures"]
native = torch.ops.tilewhisper_native


class Picked:
    """A weight that only gives single rows, as one that is quantised in its file."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.pick = lambda indices: weight[indices].float()


def in_float64(norm: Norm) -> Norm:
    return Norm(norm.weight.double(), norm.bias.double(), norm.eps)


@pytest.mark.parametrize("fresh", [1, 20])
@pytest.mark.parametrize("name", ["native", "torch"])
def test_self_attention_is_causal_attention_over_the_cache(instruction_set, backend, name, fresh):
    heads, lengths, layer = 3, [17, 0, 32], 1
    before = normal(2, 2, 3, heads, 40, 64)
    caches = paged(before, lengths, fresh)
    qkv = normal(3, fresh, 3 * heads * 64, seed=2)
    run = TorchBackend() if name == "torch" else backend
    y = run.self_attention(qkv, caches, layer, 0.125)
    q, k, v = (part.view(3, fresh, heads, 64).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    for row, length in enumerate(lengths):
        cached = dense(caches, row, length + fresh)
        assert torch.equal(cached[:, :, :, :length], before[:, :, row, :, :length])
        assert torch.equal(cached[layer, :, :, length:], torch.stack((k[row], v[row])))
        assert not cached[1 - layer, :, :, length:].any()
        visible = torch.ones(fresh, length + fresh, dtype=torch.bool).tril(length)
        exact = F.scaled_dot_product_attention(
            q[row].double(), *cached[layer].double().unbind(), attn_mask=visible, scale=0.125
        )
        assert relative(y[row], exact.transpose(0, 1).flatten(1)) < 1e-6


def test_self_attention_has_the_same_bits_in_any_pages(instruction_set, backend):
    """The order of sums does not depend on where a page ends, and other rows do not matter."""
    cache, lengths, qkv = normal(1, 2, 3, 2, 40, 64), [37, 5, 16], normal(3, 2, 3 * 2 * 64, seed=2)
    one, *others = (backend.self_attention(qkv, paged(cache, lengths, 2, page), 0, 0.125) for page in (64, 16, 3, 1))
    assert all(torch.equal(one, other) for other in others)
    for row, length in enumerate(lengths):
        alone = paged(cache[:, :, row : row + 1], [length], 2)
        assert torch.equal(backend.self_attention(qkv[row : row + 1], alone, 0, 0.125), one[row : row + 1])


def decoder_layer(backend, d: int, seed: int = 0) -> DecoderLayer:
    def norm(number):
        return Norm(1 + normal(d, seed=seed + number) / 10, normal(d, seed=seed + number + 1), 1e-5)

    def product(n, k, number):
        return backend.prepare(normal(n, k, seed=seed + number) / k**0.5, normal(n, seed=seed + number + 1) / 10)

    sizes = {
        "qkv": (3 * d, d),
        "self_out": (d, d),
        "cross_query": (d, d),
        "cross_out": (d, d),
        "fc1": (4 * d, d),
        "fc2": (d, 4 * d),
    }
    products = {name: product(*size, 10 * i) for i, (name, size) in enumerate(sizes.items())}
    return DecoderLayer(self_norm=norm(1), cross_norm=norm(3), final_norm=norm(5), scale=0.125, **products)


@pytest.mark.parametrize(
    ("lengths", "new"),
    [([0], [1]), ([7], [3]), ([0], [40]), ([3, 0, 9, 9, 1], [1, 1, 1, 1, 1]), ([3, 0, 9, 9, 1], [1, 4, 40, 1, 3])],
)
def test_decoder_layers_in_one_call_equal_their_operations(instruction_set, backend, lengths, new):
    heads, batch = 3, len(lengths)
    windows = [
        (normal(1, heads, n, 64, seed=n), normal(1, heads, n, 64, seed=n + 1), bias)
        for n, bias in ((33, None), (20, normal(20)), (33, None), (5, None))
    ]
    places = [0, 1, 1, 2, 3][:batch]  # two rows share a window
    x = normal(sum(new), heads * 64)
    results = []
    for run in (backend, TorchBackend()):
        cross_kv = [run.pack_cross_kv(*window) for window in windows]
        caches = paged(normal(2, 2, batch, heads, 50, 64, seed=2), lengths, new)
        layers = run.prepare_layers([decoder_layer(run, heads * 64), decoder_layer(run, heads * 64, seed=100)])
        y = run.decoder_layers(x, layers, caches, new, [(cross_kv[i], cross_kv[i]) for i in places])
        results.append((y, torch.stack([*caches.slabs])))
    # The error of 8 successive products; int16 has finer activations in a decode step: 4.1e-4 instead of 5.9e-4.
    bound = {16: 4.8e-4, 8: 2.5e-2, 4: 0.2}[backend.bits]
    for ours, exact in zip(*results, strict=True):
        assert relative(ours, exact) < bound


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_possible_sums_of_a_decode_step_do_not_overflow(instruction_set, backend, sign):
    """All numbers are the largest of their row: norms give their bias only, and each product has equal columns."""
    d = 192
    results = []
    for run in (backend, TorchBackend()):
        layer = decoder_layer(run, d)
        norm = Norm(torch.zeros(d), torch.full((d,), 3.0), 1e-5)
        sizes = {"qkv": (3 * d, d), "self_out": (d, d), "cross_query": (d, d), "cross_out": (d, d)}
        sizes |= {"fc1": (4 * d, d), "fc2": (d, 4 * d)}
        products = {
            name: run.prepare(torch.full(size, sign / size[1]), torch.zeros(size[0])) for name, size in sizes.items()
        }
        layer = replace(layer, self_norm=norm, cross_norm=norm, final_norm=norm, **products)
        window = run.pack_cross_kv(torch.ones(1, 3, 20, 64), torch.full((1, 3, 20, 64), 2.0))
        caches = paged(torch.zeros(1, 2, 2, 3, 8, 64), [0, 0], 1)
        layers, windows = run.prepare_layers([layer]), [(window,)] * 2
        results.append(run.decoder_layers(torch.ones(2, d), layers, caches, [1, 1], windows))
    rounding = 2.0**-11 if backend.bits == 4 else 1e-6  # of a scale
    torch.testing.assert_close(*results, rtol=10 * rounding, atol=10 * rounding)


def test_decoder_layers_have_the_same_bits_on_any_number_of_threads(backend, set_threads):
    layers, x = backend.prepare_layers([decoder_layer(backend, 192, seed) for seed in (0, 100)]), normal(2, 192)
    window = backend.pack_cross_kv(normal(1, 3, 30, 64), normal(1, 3, 30, 64, seed=1))
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        for _ in range(8):
            caches = paged(torch.zeros(2, 2, 2, 3, 8, 64), [0, 0], 1)
            results.append(backend.decoder_layers(x, layers, caches, [1, 1], [(window, window)] * 2))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_cross_attention_cache_is_released_with_its_last_reference(backend):
    layers, x = backend.prepare_layers([decoder_layer(backend, 64)]), normal(1, 64)
    caches = paged(torch.zeros(1, 2, 1, 1, 8, 64), [0], 1)
    of_one_token = caches.slabs, caches.pages[0], [0], [1]
    first, second = (backend.pack_cross_kv(normal(1, 1, n, 64), normal(1, 1, n, 64)) for n in (30, 20))
    gone, before = first.handle.number, backend.decoder_layers(x, layers, caches, [1], [(second,)])
    del first
    assert torch.equal(backend.decoder_layers(x, layers, caches, [1], [(second,)]), before)
    with pytest.raises(RuntimeError, match=f"{gone} is not the handle of a cross-attention K/V cache"):
        native.decoder_layers(x, [layers[0].number], *of_one_token, [gone], [1])
    with pytest.raises(RuntimeError, match="is not the handle of a decoder layer"):
        native.decoder_layers(x, [second.handle.number], *of_one_token, [second.handle.number], [1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_input_is_a_row_of_the_embedding_and_a_position(dtype, instruction_set, backend, tmp_path):
    """In memory, in a file, and from what only picks rows; the torch backend's is the same sum."""
    weight, positions = normal(70, 45).to(dtype), normal(30, 45, seed=1)
    tokens, places = [3, 0, 69, 3] * 9, [*range(29, -1, -1), *range(6)]
    expected = weight[tokens].float() + positions[places]
    path = tmp_path / "weights"
    path.write_bytes(bytes(6) + weight.view(torch.uint8).numpy().tobytes())
    with path.open("r+b") as file:
        rows = RowsInFile(torch.empty_like(weight), MappedFile(str(path), os.dup(file.fileno()), 6))
        for run in (backend, TorchBackend()):
            for embedding in (weight, rows, Picked(weight)):
                assert torch.equal(run.embed(tokens, places, embedding, positions), expected)
        file.truncate(100)
        for run in (backend, TorchBackend()):
            with pytest.raises(CheckpointError, match="it changed or cannot be read any more"):
                run.embed(tokens, places, rows, positions)


@pytest.mark.parametrize(("rows", "k"), [(1, 512), (40, 45)])
def test_the_norm_equals_torchs(rows, k, instruction_set, backend):
    norm, x = Norm(normal(k, seed=1), normal(k, seed=2), 1e-5), normal(rows, 2 * k)[:, :k] * 3 + 2
    torch.testing.assert_close(backend.norm(x, norm), TorchBackend().norm(x.double(), in_float64(norm)).float())
