"""Products of 4-bit weights by this project's own kernels: `int4`; and an output projection of 4 bits.

Weights are in groups of 32 along k, 4 bits each, with a float16 scale for each group, by the rule of ggml's q4_0: a
weight that was dequantised from q4_0 gets its very integers and scales back. 0.5625 bytes a weight are read instead of
1, which is what the few rows of a decode step wait for. Activations have 8 bits and a scale for each group of 32, as
in ggml's q8_0. With m the largest magnitude of a group,

    u_w = m / 16 and half a unit of float16 of 7 m / 8; a number beyond 7/8 of m, of the other sign than it, is cut to
          that, so that u_w is m / 8 there
    u_x = m / 254

    |error of one product| <= sum_k (|x_k| u_w + |w_k| u_x + u_x u_w)

which for normally distributed rows is 8.8e-2 of a result's size, nearly all of it by the weights.

The output projection loses too much with 4 bits as it is: all tokens' rows have nearly the same large part, whose
rounding makes logits of base wrong by 0.83 (standard deviation), so that half of the steps would compute 500 logits
again and some 30,000. This common part, the first RANK principal directions of the rows, is a product of low rank in
float32; 4 bits hold the rest. The logits' error is then 0.24, and a greedy step computes 11 logits of text and 118 of
timestamps again (mean; with beams of 5, 72 and 240 a beam). So many logits are exact then that tokens are those of
float32 logits at least as often as with 8 bits: on 60 of 60 clips of base, greedy and with 5 beams (8 bits: 60 and 55).

60 clips, word errors of int8 and int4: base 13.97 and 13.31 (greedy), 13.02 and 12.36 (5 beams); tiny.en 16.54 and
16.83, 14.26 and 16.16. With fc2 and qkv in 8 bits tiny.en had int8's. fc2 alone makes 40 % of the divergence from
float32 (KL, base). Scales of least squared error instead of q4_0's were no better.
"""

import torch
from torch import Tensor

from tilewhisper.kernels.cpu.packed_weight import PackedWeight, native, pack, padded
from tilewhisper.kernels.cpu.quantized import Int8Backend, LMHead

RANK = 4
"""Base: with 0, 1, 4 and 16, a greedy step computed 252, 15, 11 and 10 logits of text again, in the mean."""
_SAMPLE = 8
"""Principal directions are those of every eighth token: they are the same, in an eighth of the time."""


def pack_nibbles(weight: Tensor, bias: Tensor | None) -> PackedWeight:
    """Pack a float32 weight (n, k) and bias (n,) in 4 bits."""
    panels, scales, _ = native.pack_nibbles(weight)
    return PackedWeight(panels, scales, None, padded(bias, len(weight)), len(weight))


def lm_head(weight: Tensor) -> LMHead:
    """The output projection (n, k) in 4 bits, but for its common part."""
    sample = weight[::_SAMPLE]
    _, directions = torch.linalg.eigh(sample.T @ sample)  # by rising eigenvalue
    shared = directions[:, -RANK:].contiguous()
    parts = weight @ shared
    panels, scales, errors = native.pack_nibbles(torch.addmm(weight, parts, shared.T, alpha=-1))
    packed = PackedWeight(panels, scales, None, None, len(weight))
    # Evenly distributed errors of this size have steps sqrt(12) times as large.
    steps = errors * (12 / weight.shape[1]) ** 0.5
    norms = torch.linalg.vector_norm(weight, dim=1)
    return LMHead(packed, steps, norms, shared, padded(parts.T.contiguous(), len(weight)))


class Int4Backend(Int8Backend):
    name = "int4"
    summary = "4-bit weights and 8-bit activations in groups of 32, attention of 8 bits, float32 sums; native code"
    bits = 4

    def prepare(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        return pack_nibbles(weight, bias)

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """In int16: the stem is a thirtieth of the work, and all states depend on it."""
        return pack(weight.transpose(1, 2).flatten(1), bias, 16)

    def prepare_lm_head(self, weight: Tensor) -> LMHead:
        return lm_head(weight)
