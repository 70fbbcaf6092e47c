"""The matrix products of every Whisper size in one table, and random inputs for them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tilewhisper.engine.routing.sites import encoder_sites, stem_sites
from tilewhisper.kernels.base import Backend, ProductShape
from tilewhisper.models.checkpoint.catalog import Size

Run = Callable[[], Tensor]
Kind = Literal["linear", "conv", "attention"]

TAPS = 3
FRAMES = 3000
"""Log-mel frames of a 30 s window, the input of the convolutions."""


@dataclass(frozen=True)
class Case:
    """A product with a weight, or attention, whose `shape` is that of QK^T (AV costs as much again)."""

    sizes: tuple[str, ...]
    role: str
    kind: Kind
    shape: ProductShape

    @property
    def stride(self) -> int:
        """The stride of a convolution."""
        return FRAMES // self.shape.m

    @property
    def is_decoding(self) -> bool:
        return self.role == "lm_head"

    @property
    def operations(self) -> int:
        return 2 * self.shape.multiply_adds * (2 if self.kind == "attention" else 1)

    def bytes(self, weight_bytes: float) -> float:
        """Bytes moved from and to memory: float32 activations in and out, and the weight."""
        return 4 * self._activations + weight_bytes * (0 if self.kind == "attention" else self.shape.k * self.shape.n)

    @property
    def _activations(self) -> int:
        s = self.shape
        if self.kind == "attention":
            return s.batch * 2 * (s.m + s.n) * s.k
        rows_in = FRAMES * s.k // TAPS if self.kind == "conv" else s.m * s.k
        return rows_in + s.m * s.n


@dataclass(frozen=True)
class Task:
    """A case with normal random inputs in the encoder's layout, scaled so that results have unit variance.

    Linear layer: x (m, k), weight (n, k), bias (n,). Convolution: x (1, frames, channels), weight (n, channels, taps),
    bias (n,). Attention: q, k, v (1, heads, positions, head size).
    """

    case: Case
    inputs: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, case: Case) -> Task:
        s, random = case.shape, torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=random)

        if case.kind == "attention":
            q, k, v = (normal(1, positions, s.batch, s.k).transpose(1, 2) for positions in (s.m, s.n, s.n))
            return cls(case, (q, k, v))
        if case.kind == "conv":
            channels = s.k // TAPS
            return cls(case, (normal(1, FRAMES, channels), normal(s.n, channels, TAPS) / math.sqrt(s.k), normal(s.n)))
        return cls(case, (normal(s.m, s.k), normal(s.n, s.k) / math.sqrt(s.k), normal(s.n)))

    def on(self, backend: Backend) -> Run:
        """Prepare the weights and return the call to time."""
        a, b, c = self.inputs
        if self.case.kind == "linear":
            weights = backend.prepare(b, c)
            return lambda: backend.linear(a, weights)
        if self.case.kind == "conv":
            taps = backend.prepare_conv(b, c)
            return lambda: backend.conv_gelu(a, taps, TAPS, self.case.stride)
        scale = self.case.shape.k**-0.5
        return lambda: backend.attention(a, b, c, scale)


def shape_table(sizes: Iterable[Size]) -> list[Case]:
    """List every distinct product of the given sizes, each with the sizes that have it."""
    owners: defaultdict[tuple[str, Kind, ProductShape], list[str]] = defaultdict(list)
    for size in sizes:
        for product in _products(size):
            owners[product].append(size.name)
    return [Case(tuple(names), *product) for product, names in owners.items()]


def _products(size: Size) -> Iterator[tuple[str, Kind, ProductShape]]:
    """Yield role, kind and shape; q, k and v are one product, as in the encoder; the LM head has 1 and 8 rows."""
    for site in stem_sites(size.n_mels, size.d_model):
        yield site.name, "conv", ProductShape(1, site.m, site.k, site.n)
    layer = encoder_sites(layers=1, d_model=size.d_model, heads=size.heads, ffn=4 * size.d_model)
    sites = {site.name.rpartition(".")[2]: site for site in layer}
    q, qk = sites["q_proj"], sites["qk"]
    yield "qkv", "linear", ProductShape(1, q.m, q.k, 3 * q.n)
    yield "attention", "attention", ProductShape(qk.batch, qk.m, qk.k, qk.n)
    for role in ("out_proj", "fc1", "fc2"):
        site = sites[role]
        yield role, "linear", ProductShape(1, site.m, site.k, site.n)
    for tokens in (1, 8):
        yield "lm_head", "linear", ProductShape(1, tokens, size.d_model, size.n_vocab)
