"""Products of 16-bit and 8-bit integers by this project's own kernels: `int16`, `int8` and `w8a8`.

Weights are quantised once and activations in every call, both row by row; products are exact, sums are int32 over at
most 256 terms and float32 beyond. With u half a unit of the last place of a row,

    int16: 16 bits of both, and any 256 numbers of a row    u = max(max|row| / 65534, norm of 256 / 92664)
           with a norm of 46332 at the most, so that no
           sum of products leaves int32 (Cauchy-Schwarz)
    int8:  8 bits of weight, 16 of activation,              u = max|row| / 254 and / 65534
    w8a8:  8 bits of both, 255 steps from an activation     u = max|row| / 254 and (max row - min row) / 510
           row's least to its largest

    |error of one product| <= sum_k (|x_k| u_w + |w_k| u_x + u_x u_w)

which for normally distributed rows is 1.4e-4 (int16) and 7.5e-3 (int8, w8a8) of a result's size; outliers of a layer
make it worse. The encoder states of tiny.en have a relative error of 4e-4 (int16), those of base 1e-3; with 2896 steps
for every row, which are safe for any norm, the errors were 1.9e-3 and 5e-3, at the same speed.

Attention by int16 quantises its logits and its weighted values in the same steps, with a float32 softmax between; by
int8 and w8a8 all of these have 8 bits (see native/attention.h). A decoder runs on int16 or int8; by int8, a window's
cross-attention keys and values are w8a8 products. The output projection (LM head) has 8 bits by int16 and 4 by int8;
the logits of top candidates are computed again in float32 (`rescore`). See lm_head.py.

The decoder's products are bound by reading weights, so int16 sums its rows 64 by 64 there, which allows up to twice as
many steps. Beams of 5 gave the tokens of openai-whisper in float32 on 59 (tiny.en) and 60 (base) of 60 clips;
hypotheses are often close.

The kernels (native/) are compiled on first use; see build.py. They run on torch's threads, by AVX-512 with VNNI, AVX2
or plain C++, whichever the processor has; results are bit-equal for any number of threads.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from tilewhisper.kernels.base import Backend, EncoderLayer, Norm, Settings
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.lm_head import LMHead, in_4_bits, in_8_bits
from tilewhisper.kernels.cpu.packed_weight import PackedWeight, native, pack, pack_quads, padded
from tilewhisper.kernels.cpu.registered import (
    Handle,
    PackedCrossKV,
    PackedKV,
    RegisteredEncoderLayer,
    register_cross_kv,
    register_encoder_layer,
    register_layer,
)
from tilewhisper.kernels.decoder import DecoderBackend, DecoderLayer, PagedKV, Rows, RowsInFile, runs

IN_MEMORY = -1, 0
"""A table's file and the offset of its first row there, where there is none."""


def linear(
    x: Tensor,
    weight: PackedWeight,
    *,
    gelu: bool = False,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    more: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """x (..., k), or its norm, times a packed weight, + bias, GELU, + residual (..., n): fresh float32 (..., n).

    `more` makes a product of low rank to add: x times (rank, k), transposed, times (rank, n up to whole panels).
    """
    rows = x if x.dim() == 3 else x.reshape(1, -1, x.shape[-1])
    scaled = (norm.weight, norm.bias, norm.eps) if norm else (None, None, 0.0)
    y: Tensor = native.linear(rows, *weight, gelu, residual, *scaled, *more)
    return y.view(*x.shape[:-1], weight.n)


class _Native(Backend):
    """Everything that all precisions share; subclasses pack weights, keys and values."""

    attention_bits: ClassVar[int]

    @cached_property
    def packing(self) -> str:
        """The backend, the code that packs, and the instruction set, whose order of sums changes the last bits."""
        code = hashlib.sha256(f"{build.NATIVE.stem} {native.instruction_set()}".encode())
        for module in sorted(Path(__file__).parent.glob("*.py")):
            code.update(module.read_bytes())
        return f"{self.name}-{code.hexdigest()[:12]}"

    def to_stored(self, prepared: PackedWeight | LMHead) -> dict[str, Tensor]:
        packed = prepared.packed if isinstance(prepared, LMHead) else prepared
        tensors = {"panels": packed.panels, "scales": packed.scales, "sums": packed.sums}
        if isinstance(prepared, LMHead):
            tensors |= {"steps": prepared.steps, "norms": prepared.norms}
            tensors |= {"shared": prepared.shared, "parts": prepared.parts}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def from_stored(self, tensors: Mapping[str, Tensor], n: int, bias: Tensor | None) -> PackedWeight | LMHead:
        packed = PackedWeight(tensors["panels"], tensors["scales"], tensors.get("sums"), padded(bias, n), n)
        if "steps" not in tensors:
            return packed
        return LMHead.create(packed, tensors["steps"], tensors["norms"], tensors.get("shared"), tensors.get("parts"))

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str | None:
        return build.why_unavailable()

    @classmethod
    def create(cls, settings: Settings) -> Backend:
        build.load()
        return cls()

    def linear(self, x: Tensor, prepared: PackedWeight) -> Tensor:
        return linear(x, prepared)

    def linear_gelu(self, x: Tensor, prepared: PackedWeight) -> Tensor:
        return linear(x, prepared, gelu=True)

    def linear_add(self, x: Tensor, prepared: PackedWeight, residual: Tensor) -> Tensor:
        return linear(x, prepared, residual=residual.contiguous())

    def norm_linear(self, x: Tensor, norm: Norm, prepared: PackedWeight) -> Tensor:
        return linear(x, prepared, norm=norm)

    def feed_forward(self, x: Tensor, norm: Norm, fc1: PackedWeight, fc2: PackedWeight) -> Tensor:
        rows = x.contiguous().view(1, -1, x.shape[-1])
        y: Tensor = native.feed_forward(rows, norm.weight, norm.bias, norm.eps, *fc1, *fc2[:4])
        return y.view(x.shape)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        left, right = (t.expand(*batch, *t.shape[-2:]).reshape(-1, *t.shape[-2:]) for t in (a, b))
        products = [linear(x, pack(y.T.contiguous(), None, 16)) for x, y in zip(left, right, strict=True)]
        return torch.stack(products).view(*batch, a.shape[-2], b.shape[-1])

    def prepare_layer(self, layer: EncoderLayer) -> RegisteredEncoderLayer:
        return RegisteredEncoderLayer(layer, register_encoder_layer(layer, self.attention_bits))

    def encoder_layer(
        self,
        x: Tensor,
        layer: RegisteredEncoderLayer,
        bias: Tensor | None = None,
        more: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if more is not None:
            return super().encoder_layer(x, layer.parts, bias, more)
        y: Tensor = native.encoder_layer(x.contiguous(), layer.handle.number, bias)
        return y

    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        packed = native.pack_keys_values(k, v, self.attention_bits)
        attended: Tensor = native.attention(q, *packed, k.shape[2], scale, bias)
        return attended


class _NativeDecoder(_Native, DecoderBackend):
    """Precisions that also run a decoder: 16-bit rows, so that only the bits of weights differ."""

    bits: ClassVar[int]

    def prepare(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return pack(weight, bias, self.bits)

    def prepare_lm_head(self, weight: Tensor) -> LMHead:
        return in_8_bits(weight)

    def embed(self, tokens: Sequence[int], places: Sequence[int], weight: Tensor | Rows, positions: Tensor) -> Tensor:
        x = torch.empty(len(tokens), positions.shape[1])
        if isinstance(weight, Tensor):
            native.embed(x, tokens, places, positions, weight, *IN_MEMORY)
        elif not isinstance(weight, RowsInFile):
            return super().embed(tokens, places, weight, positions)
        elif not native.embed(x, tokens, places, positions, weight.mapped, weight.file.descriptor, weight.file.offset):
            raise weight.file.unreadable()
        return x

    def logits(self, x: Tensor, lm_head: LMHead) -> Tensor:
        return linear(x, lm_head.packed, more=(lm_head.shared, lm_head.parts))

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        y: Tensor = native.layer_norm(x, norm.weight, norm.bias, norm.eps)
        return y

    def rescore(
        self,
        logits: Tensor,
        x: Tensor,
        lm_head: LMHead,
        weight: Tensor | Rows,
        split: int,
        count: int = 1,
        lowered: int = 0,
    ) -> None:
        bounds = *lm_head.rounding, split, count, lowered
        if isinstance(weight, Tensor):
            native.rescore(logits, x, weight, *bounds, *IN_MEMORY)
            return
        if isinstance(weight, RowsInFile):
            if not native.rescore(logits, x, weight.mapped, *bounds, weight.file.descriptor, weight.file.offset):
                raise weight.file.unreadable()
            return
        for second_part in (False, True):
            rows, tokens = native.candidates(logits, x, *bounds, second_part)
            unique, places = tokens.unique(return_inverse=True)
            logits[rows, tokens] = (weight.pick(unique)[places] * x[rows]).sum(-1)

    def mask(self, logits: Tensor, tokens: Tensor, spans: Sequence[tuple[int, int, int]]) -> None:
        native.mask(logits, tokens, [*chain(*spans)])

    def prefer_last_part(self, logits: Tensor, split: int) -> None:
        native.prefer_last_part(logits, split)

    def top_k(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = native.top_k(logits, count)
        return found

    def pack_cross_kv(self, k: Tensor, v: Tensor, bias: Tensor | None = None) -> PackedCrossKV:
        packed: PackedKV = native.pack_keys_values(k, v, self.attention_bits)
        return register_cross_kv(packed, k.shape[1:], bias)

    def project_cross_kv(
        self, states: Tensor, prepared: PackedWeight, heads: int, bias: Tensor | None = None
    ) -> PackedCrossKV:
        packed: PackedKV = native.project_keys_values(states, *prepared, heads, self.attention_bits)
        return register_cross_kv(packed, (heads, states.shape[1], prepared.n // heads // 2), bias)

    def cross_attention(self, q: Tensor, cross_kv: PackedCrossKV, scale: float) -> Tensor:
        attended: Tensor = native.attention(q, *cross_kv.packed, cross_kv.n, scale, cross_kv.bias)
        return attended.transpose(1, 2).flatten(2)

    def self_attention(self, qkv: Tensor, caches: PagedKV, layer: int, scale: float) -> Tensor:
        attended: Tensor = native.self_attention(
            qkv.contiguous(), caches.slabs, [*chain(*caches.pages)], caches.lengths, layer, scale
        )
        return attended

    def prepare_layers(self, layers: Sequence[DecoderLayer]) -> list[Handle]:
        return [register_layer(layer) for layer in layers]

    def decoder_layers(
        self,
        x: Tensor,
        layers: Sequence[Handle],
        caches: PagedKV,
        new: Sequence[int],
        cross_kv: Sequence[Sequence[PackedCrossKV]],
    ) -> Tensor:
        windows, counts = runs(cross_kv), iter(new)
        y: Tensor = native.decoder_layers(
            x,
            [layer.number for layer in layers],
            caches.slabs,
            [*chain(*caches.pages)],
            caches.lengths,
            new,
            [of_layer.handle.number for window, _ in windows for of_layer in window],
            [sum(islice(counts, rows)) for _, rows in windows],
        )
        return y


class Int16Backend(_NativeDecoder):
    name = "int16"
    summary = "rows in int16, as fine as their norms allow, exact products, int32 and float32 sums; native code"
    bits = 16
    attention_bits = 16


class Int8Backend(_NativeDecoder):
    name = "int8"
    summary = "8-bit weight rows, 16-bit activation rows, attention of 8 bits, token candidates in 4 bits; native code"
    bits = 8
    attention_bits = 8

    def prepare_cross_kv(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """In 8 bits with 8-bit rows: at hundreds of rows, arithmetic takes the time, not reading the weight."""
        return pack_quads(weight, bias)

    def prepare_lm_head(self, weight: Tensor) -> LMHead:
        return in_4_bits(weight)


class W8A8Backend(_Native):
    name = "w8a8"
    summary = "8-bit weight rows, 8-bit activation rows, attention of 8 bits, int32 sums; native code"
    attention_bits = 8

    def prepare(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return pack_quads(weight, bias)

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """In int16: the stem is a thirtieth of the work, and all states depend on it."""
        return pack(weight.transpose(1, 2).flatten(1), bias, 16)
