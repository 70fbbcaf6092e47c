"""Products of 4-bit weights by this project's own kernels: `int4`.

Weights are in groups of 32 along k, 4 bits each, with a float16 scale for each group, by the rule of ggml's q4_0: a
weight that was dequantised from q4_0 gets its very integers and scales back. 0.5625 bytes a weight are read instead of
1, which is what the few rows of a decode step wait for. Activations have 8 bits and a scale for each group of 32, as
in ggml's q8_0. With m the largest magnitude of a group,

    u_w = m / 16 and half a unit of float16 of 7 m / 8; a number beyond 7/8 of m, of the other sign than it, is cut to
          that, so that u_w is m / 8 there
    u_x = m / 254

    |error of one product| <= sum_k (|x_k| u_w + |w_k| u_x + u_x u_w)

which for normally distributed rows is 8.8e-2 of a result's size, nearly all of it by the weights.

60 clips, word errors of int8 and int4: base 13.97 and 13.31 (greedy), 13.02 and 12.36 (5 beams); tiny.en 16.54 and
16.83, 14.26 and 16.16. With fc2 and qkv in 8 bits tiny.en had int8's. fc2 alone makes 40 % of the divergence from
float32 (KL, base). Scales of least squared error instead of q4_0's were no better.
"""

from torch import Tensor

from tilewhisper.kernels.cpu.packed_weight import PackedWeight, native, pack, padded
from tilewhisper.kernels.cpu.quantized import Int8Backend


def pack_nibbles(weight: Tensor, bias: Tensor | None) -> PackedWeight:
    """Pack a float32 weight (n, k) and bias (n,) in 4 bits."""
    panels, scales, _ = native.pack_nibbles(weight)
    return PackedWeight(panels, scales, None, padded(bias, len(weight)), len(weight))


class Int4Backend(Int8Backend):
    name = "int4"
    summary = "4-bit weights and 8-bit activations in groups of 32, attention of 8 bits, float32 sums; native code"
    bits = 4

    def prepare(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return pack_nibbles(weight, bias)

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """In int16: the stem is a thirtieth of the work, and all states depend on it."""
        return pack(weight.transpose(1, 2).flatten(1), bias, 16)
