"""The cross-attention of the decoder's alignment heads on a given text, for word timestamps.

One forward pass over all tokens at once, in float32 with torch, over the decoder's own modules, whose weights are read
from their file one by one. Cross-attention itself uses the window's K/V cache; only the alignment heads' keys are
computed again.
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
from tilewhisper.models.checkpoint.stored_tensor import rows_of


class CrossAttention:
    """Compute the alignment heads' attention logits, with the modules of a decoder (`models.checkpoint.modules`)."""

    def __init__(self, modules: Any, backend: DecoderBackend, heads: Sequence[tuple[int, int]]) -> None:
        """`heads` are (layer, head) pairs; `backend` is the backend that packed the cross-attention K/V caches."""
        self._modules, self._backend = modules, backend
        self._heads: defaultdict[int, list[int]] = defaultdict(list)
        for layer, head in sorted(heads):
            self._heads[layer].append(head)

    @torch.inference_mode()
    def __call__(
        self, tokens: Sequence[int], encoded: Encoded, cross_kv: CrossKV, positions: int
    ) -> tuple[Tensor, Tensor]:
        """The attention logits (heads, tokens, positions), and the normalised last hidden states (tokens, d_model).

        The logits are over the window's first `positions`. The longest text with end-of-text exceeds the text context
        by one token; tokens past the context get the last position embedding.
        """
        modules, states = self._modules, encoded.states[0, :positions]
        indices = torch.arange(len(tokens)).clamp(max=len(modules.embed_positions.weight) - 1)
        x = rows_of(modules.embed_tokens.weight, torch.tensor(tokens)) + rows_of(
            modules.embed_positions.weight, indices
        )
        logits = []
        for index, (layer, cached) in enumerate(zip(modules.layers, cross_kv.layers, strict=True)):
            x = x + _self_attention(layer, x)
            cross = layer.encoder_attn
            queries = _heads(cross, cross.q_proj(layer.encoder_attn_layer_norm(x)))
            if selected := self._heads.get(index):
                keys = _heads(cross, cross.k_proj(states))
                logits.append(queries[selected] @ keys[selected].mT * cross.scaling)
            x = x + cross.out_proj(self._backend.cross_attention(queries[None], cached, cross.scaling)[0])
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        return torch.cat(logits), modules.layer_norm(x)


def _self_attention(layer: Any, x: Tensor) -> Tensor:
    """Causal self-attention of all tokens (tokens, d_model), layer norm included."""
    own, normed = layer.self_attn, layer.self_attn_layer_norm(x)
    q, k, v = (_heads(own, projection(normed)) for projection in (own.q_proj, own.k_proj, own.v_proj))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=own.scaling)
    out: Tensor = own.out_proj(attended.transpose(0, 1).flatten(1))
    return out


def _heads(attention: Any, x: Tensor) -> Tensor:
    """(tokens, d_model) -> (heads, tokens, head_dim)"""
    heads: Tensor = x.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(0, 1)
    return heads
