"""Run Whisper's encoder over the transformers modules: conv stem, layers with routed products, final norm.

A runner of our own, because transformers' forward fixes the context at 30 s and does not let the attention products
go elsewhere. Norms, convolutions and positions are the model's own modules; every matrix product of a layer goes
through `engine.routing`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.engine.routing import LayerRoutes, RoutedEncoder


class Encoder:
    """The routed encoder of one transformers Whisper model."""

    def __init__(self, modules: Any, routed: RoutedEncoder) -> None:
        """`modules` is the model's `WhisperEncoder`, whose projections `routed` has swapped."""
        self._modules = modules
        self._layers = list(zip(modules.layers, routed.layers, strict=True))

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model)."""
        x = self._stem(mel)
        for layer, routes in self._layers:
            x = x + _self_attention(layer, routes, layer.self_attn_layer_norm(x))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        states: Tensor = self._modules.layer_norm(x)
        return states

    def _stem(self, mel: Tensor) -> Tensor:
        x = F.gelu(self._modules.conv1(mel))
        x = F.gelu(self._modules.conv2(x)).transpose(1, 2)
        positions: Tensor = self._modules.embed_positions.weight
        return x + positions[: x.shape[1]]


def _self_attention(layer: Any, routes: LayerRoutes, x: Tensor) -> Tensor:
    attention = layer.self_attn
    heads = (*x.shape[:-1], attention.num_heads, attention.head_dim)
    q, k, v = (part.view(heads).transpose(1, 2) for part in routes.qkv(x))
    values = routes.attention(q, k, v, attention.scaling)
    projected: Tensor = attention.out_proj(values.transpose(1, 2).reshape(x.shape))
    return projected
