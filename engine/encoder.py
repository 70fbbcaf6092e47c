"""Run Whisper's encoder over the transformers modules: conv stem, layers with routed products, final norm.

A runner of our own, because transformers' forward fixes the context at 30 s and does not let the attention products
go elsewhere. Norms and positions are the model's own modules; every product goes through `engine.routing`.
"""

from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine.routing import LayerRoutes, RoutedEncoder


class Encoder:
    """The routed encoder of one transformers Whisper model."""

    def __init__(self, modules: Any, routed: RoutedEncoder) -> None:
        """`modules` is the model's `WhisperEncoder`, whose projections `routed` has swapped."""
        self._modules = modules
        self._convolutions = routed.stem
        self._layers = list(zip(modules.layers, routed.layers, strict=True))

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model)."""
        x = self._stem(mel)
        for layer, routes in self._layers:
            x = _self_attention(layer, routes, x)
            x = layer.fc2.add(layer.fc1.gelu(layer.final_layer_norm(x)), x)
        states: Tensor = self._modules.layer_norm(x)
        return states

    def _stem(self, mel: Tensor) -> Tensor:
        x = mel.mT
        for conv in self._convolutions:
            x = conv(x)
        positions: Tensor = self._modules.embed_positions.weight
        return x + positions[: x.shape[1]]


def _self_attention(layer: Any, routes: LayerRoutes, x: Tensor) -> Tensor:
    """x (batch, positions, d_model) plus what its positions take from each other."""
    attention = layer.self_attn
    heads = (*x.shape[:-1], attention.num_heads, attention.head_dim)
    q, k, v = (part.view(heads).transpose(1, 2) for part in routes.qkv(layer.self_attn_layer_norm(x)))
    values = routes.attention(q, k, v, attention.scaling)
    y: Tensor = attention.out_proj.add(values.transpose(1, 2).reshape(x.shape), x)
    return y
