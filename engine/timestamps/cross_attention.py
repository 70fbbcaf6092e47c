"""What the alignment heads of Whisper's decoder attend to while it reads a text that is known: for word timestamps.

One pass over all tokens at once, in float32 by torch, over the decoder's own modules; only what the other heads take
from the audio comes from keys and values that are there already.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.engine.decoding.decoder import CrossKV
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.kernels.decoder import DecoderBackend


class CrossAttention:
    """The alignment heads of one transformers Whisper decoder (its `WhisperDecoder`)."""

    def __init__(self, modules: Any, backend: DecoderBackend, heads: Sequence[tuple[int, int]]) -> None:
        """`heads` are (layer, head) pairs; `backend` is the one that made what is cross_kv."""
        self._modules, self._backend = modules, backend
        self._heads: defaultdict[int, list[int]] = defaultdict(list)
        for layer, head in sorted(heads):
            self._heads[layer].append(head)

    @torch.inference_mode()
    def __call__(
        self, tokens: Sequence[int], encoded: Encoded, cross_kv: CrossKV, positions: int
    ) -> tuple[Tensor, Tensor]:
        """The heads' scores before the softmax (heads, tokens, positions) over the window's first `positions`, and the
        last layer's output (tokens, d_model). Tokens over the text context, which a window's longest text with the
        end-of-text token after it comes to, stand at its last place."""
        modules, states = self._modules, encoded.states[0, :positions]
        places = torch.arange(len(tokens)).clamp(max=len(modules.embed_positions.weight) - 1)
        x = modules.embed_tokens.weight[list(tokens)] + modules.embed_positions.weight[places]
        scores = []
        for number, (layer, kept) in enumerate(zip(modules.layers, cross_kv.layers, strict=True)):
            x = x + _self_attention(layer, x)
            cross = layer.encoder_attn
            queries = _heads(cross, cross.q_proj(layer.encoder_attn_layer_norm(x)))
            if chosen := self._heads.get(number):
                keys = _heads(cross, cross.k_proj(states))
                scores.append(queries[chosen] @ keys[chosen].mT * cross.scaling)
            x = x + cross.out_proj(self._backend.cross_attention(queries[None], kept, cross.scaling)[0])
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        return torch.cat(scores), modules.layer_norm(x)


def _self_attention(layer: Any, x: Tensor) -> Tensor:
    """What the tokens (tokens, d_model) take from those before them."""
    own, normed = layer.self_attn, layer.self_attn_layer_norm(x)
    q, k, v = (_heads(own, projection(normed)) for projection in (own.q_proj, own.k_proj, own.v_proj))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=own.scaling)
    out: Tensor = own.out_proj(attended.transpose(0, 1).flatten(1))
    return out


def _heads(attention: Any, x: Tensor) -> Tensor:
    """(tokens, d_model) -> (heads, tokens, head_dim)"""
    heads: Tensor = x.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(0, 1)
    return heads
