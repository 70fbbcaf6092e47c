"""Run Whisper's encoder over the model's modules: conv stem, layers with routed products, final norm.

A runner of our own, because transformers' forward fixes the context at 30 s and does not let the attention products
go elsewhere. Weights are the model's own; every product goes through `engine.routing`, with the norm before it.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine.encoding.audio_context import EDGE, FULL, AudioContext, Encoded, SparseTail, whole_positions
from tilewhisper.engine.routing.modules import LayerRoutes, RoutedEncoder
from tilewhisper.models.constants import FRAMES_PER_POSITION, POSITIONS

Attend = Callable[[LayerRoutes, int, Tensor, Tensor, Tensor, float], Tensor]
"""(routes, layer, q, k, v, scale) -> values, all (batch, heads, positions, head_dim)"""


class Encoder:
    """The routed encoder of one Whisper model."""

    def __init__(self, modules: Any, routed: RoutedEncoder) -> None:
        """`modules` is the model's encoder, whose projections `routed` has swapped."""
        self._modules = modules
        self._convolutions = routed.stem
        self._layers = list(zip(modules.layers, routed.layers, strict=True))
        self._positions: Tensor = modules.embed_positions.weight

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model)."""
        x = self._stem(mel)
        return self._run(x + self._positions[: x.shape[1]], _attend_to_all)

    @torch.inference_mode()
    def encode(self, mel: Tensor, content_frames: int, context: AudioContext) -> Encoded:
        """One window (1, n_mels, 3000) whose first frames hold audio and whose others are silence."""
        whole = whole_positions(content_frames)
        if context == FULL or whole >= POSITIONS - EDGE:
            return Encoded(self(mel))
        if context.mode == "sparse":
            return self._with_sparse_tail(mel, content_frames, SparseTail.after(whole, context.step))
        return self._with_silent_tail(mel, content_frames, whole)

    def _with_sparse_tail(self, mel: Tensor, content_frames: int, tail: SparseTail) -> Encoded:
        def attend(routes: LayerRoutes, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
            return routes.attention(q, k, v, scale, tail.bias)

        x = self._short_stem(mel, content_frames, tail.kept)
        return Encoded(self._run(x, attend), tail.bias, cheap=True)

    def _with_silent_tail(self, mel: Tensor, content_frames: int, whole: int) -> Encoded:
        silence = self._silence

        def attend(routes: LayerRoutes, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
            silent_k, silent_v = silence.keys_values[layer]
            k, v = torch.cat([k, silent_k[:, :, whole:]], dim=2), torch.cat([v, silent_v[:, :, whole:]], dim=2)
            return routes.attention(q, k, v, scale, None)

        x = self._short_stem(mel, content_frames, torch.arange(whole))
        return Encoded(torch.cat([self._run(x, attend), silence.states[:, whole:]], dim=1), cheap=True)

    @cached_property
    def _silence(self) -> "_Silence":
        """A window of nothing but silence, encoded once: 37 MB for base."""
        keys_values: list[tuple[Tensor, Tensor]] = []

        def attend(routes: LayerRoutes, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
            keys_values.append((k.contiguous(), v.contiguous()))
            return routes.attention(q, k, v, scale, None)

        n_mels = self._modules.conv1.weight.shape[1]
        x = self._stem(torch.zeros(1, n_mels, POSITIONS * FRAMES_PER_POSITION))
        return _Silence(self._run(x + self._positions, attend), keys_values)

    def _run(self, x: Tensor, attend: Attend) -> Tensor:
        """(batch, positions, d_model) through the layers and the final norm."""
        for i, (layer, routes) in enumerate(self._layers):
            x = _self_attention(layer, routes, x, i, attend)
            x = routes.feed_forward(x)
        states: Tensor = self._modules.layer_norm(x)
        return states

    def _stem(self, mel: Tensor) -> Tensor:
        x = mel.mT
        for conv in self._convolutions:
            x = conv(x)
        return x

    def _short_stem(self, mel: Tensor, content_frames: int, kept: Tensor) -> Tensor:
        """The kept positions' inputs (1, n, d_model), without the convolutions of silence.

        After the audio, log-mel frames are all alike, and so are positions from 3 frames on, but for the last, which
        sees the edge. So a window cut 16 frames after the audio has one of each kind.
        """
        frames = min(-(-(content_frames + 16) // FRAMES_PER_POSITION) * FRAMES_PER_POSITION, mel.shape[2])
        x = self._stem(mel[:, :, :frames])
        last = x.shape[1] - 1
        source = torch.where(kept == POSITIONS - 1, last, kept.clamp(max=last - 1))
        return x[:, source] + self._positions[kept]


class _Silence:
    """What a silent window leaves: states (1, 1500, d_model), and each layer's keys and values."""

    def __init__(self, states: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> None:
        self.states = states
        self.keys_values = keys_values


def _attend_to_all(routes: LayerRoutes, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return routes.attention(q, k, v, scale, None)


def _self_attention(layer: Any, routes: LayerRoutes, x: Tensor, number: int, attend: Attend) -> Tensor:
    """x (batch, positions, d_model) plus what its positions take from each other."""
    attention = layer.self_attn
    heads = (*x.shape[:-1], attention.num_heads, attention.head_dim)
    q, k, v = (part.view(heads).transpose(1, 2) for part in routes.qkv(x))
    values = attend(routes, number, q, k, v, attention.scaling)
    y: Tensor = attention.out_proj.add(values.transpose(1, 2).reshape(x.shape), x)
    return y
