"""Arguments that every native operator accepts, by operator."""

import os
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "tilewhisper_native"
native = getattr(torch.ops, NAMESPACE)
FILE = TemporaryFile()  # noqa: SIM115 (open as long as the process runs)
"""For weights that are read from their file."""


QUADS = 0
"""For `bits`: weights of 8 bits for rows of 8."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight(n: int, k: int, bits: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Packed panels, scales and sums, of 16, 8 or 4 bits."""
    dense = normal(n, k, seed=n)
    if bits == QUADS:
        return tuple(native.pack_quads(dense))
    if bits == 4:
        return *native.pack_nibbles(dense)[:2], None
    return *native.pack_weight(dense, bits), None


def padded(*shape: int) -> Tensor:
    return torch.nn.functional.pad(normal(*shape, seed=7), (0, -shape[-1] % 16))


def linear(*shape: int, bits: int = 16, n: int = 21, whole: bool = True, rank: int = 0) -> list[Any]:
    k = shape[-1]
    low_rank = [normal(rank, k), padded(rank, n)] if rank else [None, None]
    more = [normal(*shape[:-1], n), normal(k), normal(k, seed=1)] if whole else [None] * 3
    return [normal(*shape), *weight(n, k, bits), padded(n) if whole else None, n, whole, *more, 1e-5, *low_rank]


def feed_forward(*shape: int, bits: int = 16, hidden: int = 70) -> list[Any]:
    k = shape[-1]
    fc1, fc2 = (weight(hidden, k, bits), padded(hidden)), (weight(k, hidden, bits), padded(k))
    return [normal(*shape), normal(k), normal(k, seed=1), 1e-5, *fc1[0], fc1[1], hidden, *fc2[0], fc2[1]]


def keys_values(*shape: int, bits: int = 16) -> list[Any]:
    return [normal(*shape), normal(*shape, seed=1), bits]


def attention(batch: int, heads: int, m: int, n: int = 21, bits: int = 16, biased: bool = True) -> list[Any]:
    packed = native.pack_keys_values(*keys_values(batch, heads, n, 32, bits=bits))
    return [normal(batch, heads, m, 32), *packed, n, 0.125, normal(n) if biased else None]


def pages(lengths: list[int], new: list[int], layers: int, head_dim: int) -> list[Any]:
    """Two slabs of pages of 4 tokens, 2 heads wide, and the pages of each row, last to first."""
    counts = [-(-(length + more) // 4) for length, more in zip(lengths, new, strict=True)]
    slabs = [normal(layers, 2, 2, sum(counts) // 2 + 1, 4, head_dim, seed=seed) for seed in range(2)]
    return [slabs, list(range(sum(counts)))[::-1]]


def self_attention(batch: int, new: int, lengths: list[int]) -> list[Any]:
    return [normal(batch, new, 3 * 2 * 32), *pages(lengths, [new] * batch, 2, 32), lengths, 1, 0.125]


def layer(bits: int, width: int = 32, hidden: int = 70) -> list[Any]:
    sizes = [(3 * width, width), *[(width, width)] * 3, (hidden, width), (width, hidden)]
    panels, scales, sums = (list(parts) for parts in zip(*(weight(*size, bits) for size in sizes), strict=True))
    norms = [normal(width, seed=seed) for seed in range(6)]
    return [norms, 1e-5, panels, scales, sums, [padded(n) for n, _ in sizes], width, hidden, 0.25]


def encoder_layer(bits: int, attention_bits: int = 8, width: int = 32, hidden: int = 70) -> list[Any]:
    norms, eps, *products, _, _, scale = layer(bits, width, hidden)
    of_encoder = [[part[i] for i in (0, 1, 4, 5)] for part in products]  # without those of cross-attention
    return [norms[:4], eps, *of_encoder, width, hidden, 2, attention_bits, scale]


def cross_kv(n: int, bits: int = 16, biased: bool = True) -> list[Any]:
    packed = native.pack_keys_values(*keys_values(1, 2, n, 16, bits=bits))
    return [*packed, 2, n, 16, normal(n) if biased else None]


def decoder_layers(lengths: list[int], new: list[int], cross_rows: list[int], bits: int = 16) -> list[Any]:
    layers = [native.register_layer(*layer(bits)) for _ in range(2)]
    handles = [native.register_cross_kv(*cross_kv(n, max(bits, 8))) for n in range(7, 7 + 2 * len(cross_rows))]
    return [normal(sum(new), 32), layers, *pages(lengths, new, 2, 16), lengths, new, handles, cross_rows]


def rescore(
    rows: int, n: int, k: int = 8, bits: int = 8, split: int = 0, count: int = 2, lowered: int = 1
) -> list[Any]:
    x, dense = normal(rows, k), normal(n, k, seed=1)
    _, scales, _ = native.pack_quads(dense)
    logits = x @ dense.T + normal(rows, n, seed=2) / 100
    rounding = [scales[:n].clone(), dense.norm(dim=1)]
    largest = [native.block_maxima(each) for each in rounding]
    return [logits, x, dense, *rounding, *largest, bits, split, count, lowered, -1, 0]


def rescore_from_file(*sizes: int, **others: int) -> list[Any]:
    arguments = rescore(*sizes, **others)
    os.pwrite(FILE.fileno(), arguments[2].numpy().tobytes(), 6)
    return [*arguments[:-2], FILE.fileno(), 6]


def embed(tokens: list[int], places: list[int], n: int, k: int, stored: torch.dtype) -> list[Any]:
    return [normal(len(tokens), k), tokens, places, normal(7, k, seed=1), normal(n, k, seed=2).to(stored), -1, 0]


def embed_from_file(*arguments: Any) -> list[Any]:
    of_memory = embed(*arguments)
    os.pwrite(FILE.fileno(), of_memory[4].view(torch.uint8).numpy().tobytes(), 6)
    return [*of_memory[:-2], FILE.fileno(), 6]


def candidates(*sizes: int, **others: int) -> list[Any]:
    logits, x, _, *bounds = rescore(*sizes, **others)[:-2]
    return [logits, x, *bounds, True]


def mask(rows: int, n: int, tokens: list[int], spans: list[int]) -> list[Any]:
    return [normal(rows, n), torch.tensor(tokens, dtype=torch.int64), spans]


VALID: dict[str, list[Callable[[], list[Any]]]] = {
    "instruction_sets": [list],
    "instruction_set": [list],
    "use_instruction_set": [lambda: ["portable"]],
    "pack_weight": [lambda: [normal(21, 13), 16], lambda: [normal(1, 1), 8]],
    "pack_nibbles": [
        lambda: [normal(21, 45), None, None],
        lambda: [normal(1, 1), None, None],
        lambda: [normal(21, 45), normal(21, 3), normal(3, 45)],
    ],
    "pack_quads": [lambda: [normal(21, 13)], lambda: [normal(1, 1)]],
    "linear": [
        partial(linear, 2, 5, 13),
        partial(linear, 1, 1, 1, bits=8, n=1, whole=False),
        partial(linear, 3, 67, 13, bits=QUADS),
        partial(linear, 2, 67, 40, bits=8),
        partial(linear, 2, 67, 45, bits=4, rank=3),
    ],
    "layer_norm": [
        lambda: [normal(3, 45), normal(45), normal(45, seed=1), 1e-5],
        lambda: [normal(1, 1), normal(1), normal(1, seed=1), 1e-5],
    ],
    "feed_forward": [partial(feed_forward, 2, 5, 13, bits=QUADS), partial(feed_forward, 1, 67, 16, bits=4)],
    "pack_keys_values": [partial(keys_values, 2, 3, 21, 32), partial(keys_values, 1, 1, 1, 16, bits=8)],
    "project_keys_values": [
        lambda: [normal(1, 21, 13), *weight(64, 13, QUADS), padded(64), 64, 2, 8],
        lambda: [normal(1, 1, 13), *weight(32, 13, 16), None, 32, 1, 16],
        lambda: [normal(1, 21, 45), *weight(64, 45, 4), None, 64, 2, 8],
    ],
    "attention": [partial(attention, 2, 3, 55), partial(attention, 1, 1, 1, n=1, bits=8, biased=False)],
    "self_attention": [partial(self_attention, 3, 2, [0, 7, 3]), partial(self_attention, 1, 1, [8])],
    "register_layer": [partial(layer, 16), partial(layer, QUADS), partial(layer, 4)],
    "register_encoder_layer": [partial(encoder_layer, 16, 16), partial(encoder_layer, QUADS)],
    "encoder_layer": [
        lambda: [normal(2, 21, 32), native.register_encoder_layer(*encoder_layer(16, 16)), normal(21)],
        lambda: [normal(1, 70, 32), native.register_encoder_layer(*encoder_layer(QUADS)), None],
    ],
    "register_cross_kv": [partial(cross_kv, 21), partial(cross_kv, 1, 8, biased=False)],
    "release": [lambda: [native.register_cross_kv(*cross_kv(3))]],
    "decoder_layers": [
        partial(decoder_layers, [0, 3, 2], [1, 2, 1], [3, 1]),
        partial(decoder_layers, [4], [1], [1], bits=QUADS),
        partial(decoder_layers, [4, 2], [1, 3], [4], bits=4),
    ],
    "mask": [partial(mask, 3, 50, [1, 49], [0, 0, 7, 2, 20, 50]), partial(mask, 1, 1, [0], [0, 0, 1])],
    "prefer_last_part": [lambda: [normal(3, 5001), 4000], lambda: [normal(1, 2), 1]],
    "top_k": [lambda: [normal(3, 5001), 6], lambda: [normal(1, 1), 1]],
    "embed": [
        partial(embed, [3, 0, 3], [6, 0, 1], 9, 13, torch.float16),
        partial(embed, [0], [0], 1, 1, torch.float32),
        partial(embed_from_file, [8, 1], [2, 3], 9, 40, torch.bfloat16),
    ],
    "block_maxima": [lambda: [normal(600)], lambda: [normal(1)]],
    "rescore": [
        partial(rescore, 3, 2500, split=2100),
        partial(rescore, 2, 2500, bits=4, split=2100),
        partial(rescore, 1, 1, count=1),
        partial(rescore_from_file, 2, 40, split=30),
    ],
    "candidates": [partial(candidates, 3, 2500, bits=4, split=2100), partial(candidates, 1, 1, count=1)],
    "peak": [lambda: ["int8", "no such set"]],
    "read_bandwidth": [],  # no arguments, a second or more; see test_peak.py
    "read": [lambda: [torch.arange(33, dtype=torch.int32)]],
}
"""Arguments by operator, in the order of its schema."""

EMPTY: dict[str, list[tuple[Callable[[], list[Any]], Any]]] = {
    "linear": [
        (partial(linear, 0, 5, 13), (0, 5, 21)),
        (partial(linear, 2, 0, 13, bits=QUADS), (2, 0, 21)),
        (partial(linear, 0, 1500, 13, whole=False), (0, 1500, 21)),
    ],
    "feed_forward": [(partial(feed_forward, 0, 5, 13), (0, 5, 13)), (partial(feed_forward, 2, 0, 13), (2, 0, 13))],
    "pack_keys_values": [
        (partial(keys_values, 0, 3, 21, 32, bits=bits), ((0, 3, 1024), (0, 3, scales), (0, 3, values), (0, 3, 32)))
        for bits, scales, values in ((16, 32, 22 * 32), (8, 64, 24 * 32))
    ],
    "attention": [
        (partial(attention, 0, 3, 7), (0, 3, 7, 32)),
        (partial(attention, 2, 0, 7), (2, 0, 7, 32)),
        (partial(attention, 2, 3, 0, bits=8), (2, 3, 0, 32)),
    ],
    "self_attention": [
        (partial(self_attention, 0, 2, []), (0, 2, 64)),
        (partial(self_attention, 2, 0, [3, 9]), (2, 0, 64)),
    ],
    "encoder_layer": [
        (lambda: [normal(0, 21, 32), native.register_encoder_layer(*encoder_layer(QUADS)), None], (0, 21, 32))
    ],
    "decoder_layers": [(partial(decoder_layers, [], [], []), (0, 32))],
    "mask": [(partial(mask, 0, 50, [1], []), None)],
    "prefer_last_part": [(lambda: [normal(0, 50), 20], None)],
    "top_k": [(lambda: [normal(0, 50), 6], ((0, 6), (0, 6), (0, 1)))],
    "layer_norm": [(lambda: [normal(0, 9), normal(9), normal(9), 1e-5], (0, 9))],
    "embed": [(partial(embed, [], [], 9, 13, torch.float16), True)],
    "rescore": [(partial(rescore, 0, 50), True)],
    "candidates": [(partial(candidates, 0, 50), ((0,), (0,)))],
    "read": [(lambda: [torch.zeros(0)], 0)],
}
"""Arguments without rows, and the shapes of the results."""
