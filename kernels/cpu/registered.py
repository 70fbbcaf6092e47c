"""Layers and cross-attention K/V caches that native code holds under a number, their handle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import finalize

from torch import Tensor

from tilewhisper.kernels.base import EncoderLayer, Norm
from tilewhisper.kernels.cpu.packed_weight import PackedWeight, native
from tilewhisper.kernels.decoder import DecoderLayer

PackedKV = tuple[Tensor, Tensor, Tensor, Tensor]
"""Keys, their scales, values, their scales, from pack_keys_values; see native/packing.h."""


class Handle:
    """A number for tensors registered in native code, for as long as this object lives. Each tensor argument of a call
    costs 0.8 us, and a step of 8 rows would pass 370: a sixth of its time."""

    def __init__(self, number: int) -> None:
        self.number = number
        finalize(self, native.release, number).atexit = False


def register_layer(layer: DecoderLayer) -> Handle:
    norms = (layer.self_norm, layer.cross_norm, layer.final_norm)
    products = (layer.qkv, layer.self_out, layer.cross_query, layer.cross_out, layer.fc1, layer.fc2)
    return Handle(native.register_layer(*_tensors(norms, products), layer.fc2.n, layer.fc1.n, layer.scale))


def register_encoder_layer(layer: EncoderLayer, attention_bits: int) -> Handle:
    tensors = _tensors((layer.attention_norm, layer.final_norm), (layer.qkv, layer.out, layer.fc1, layer.fc2))
    sizes = layer.fc2.n, layer.fc1.n, layer.heads
    return Handle(native.register_encoder_layer(*tensors, *sizes, attention_bits, layer.scale))


def _tensors(norms: Sequence[Norm], products: Sequence[PackedWeight]) -> tuple[Any, ...]:
    """Norms and products as native/layer_weights.h takes them."""
    panels, scales, sums, biases, _ = map(list, zip(*products, strict=True))
    return [part for norm in norms for part in (norm.weight, norm.bias)], norms[0].eps, panels, scales, sums, biases


@dataclass(frozen=True, eq=False)
class RegisteredEncoderLayer:
    """An encoder layer, and its handle for `encoder_layer`."""

    parts: EncoderLayer
    handle: Handle


class PackedCrossKV(NamedTuple):
    """Packed keys and values of n positions, and their handle for `decoder_layers`; see native/kernels.h."""

    packed: PackedKV
    n: int
    bias: Tensor | None  # (n,)
    handle: Handle


def register_cross_kv(packed: PackedKV, sizes: Sequence[int], bias: Tensor | None) -> PackedCrossKV:
    """Register packed keys and values; `sizes` are heads, n and head_dim."""
    return PackedCrossKV(packed, sizes[1], bias, Handle(native.register_cross_kv(*packed, *sizes, bias)))
