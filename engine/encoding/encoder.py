"""Run Whisper's encoder over the model's modules: conv stem, layers with routed products, final norm.

A runner of our own, because transformers' forward fixes the context at 30 s and does not let the attention products
run elsewhere. Weights are the model's own; every product goes through `engine.routing`, with the norm before it.
Activations may stay on a device from one layer to the next; the last one is read back before the final norm.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine.encoding.audio_context import EDGE, FULL, AudioContext, whole_positions
from tilewhisper.engine.encoding.states import Encoded, SparseTail
from tilewhisper.engine.routing.modules import RoutedEncoder
from tilewhisper.kernels.base import split_heads
from tilewhisper.kernels.device_tensor import to_host
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.constants import FRAMES_PER_POSITION, POSITIONS

KeysValues = tuple[Tensor, Tensor]
"""One layer's, each (1, heads, positions, head_dim)"""


class Encoder:
    """The routed encoder of one Whisper model."""

    def __init__(self, modules: Any, routed: RoutedEncoder) -> None:
        """`modules` is the model's encoder, whose projections `routed` has swapped."""
        self._modules = modules
        self._convolutions = routed.stem
        self._layers, self._heads = routed.layers, routed.heads
        self._positions = whole(modules.embed_positions.weight)

    @torch.inference_mode()
    def __call__(self, mel: Tensor) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model)."""
        x = self._stem(mel)
        return self._run(x + self._positions[: x.shape[1]])

    @torch.inference_mode()
    def encode(self, mel: Tensor, content_frames: int, context: AudioContext) -> Encoded:
        """Encode one window (1, n_mels, 3000) with audio in its first `content_frames` frames and silence after."""
        whole = whole_positions(content_frames)
        if context == FULL or whole >= POSITIONS - EDGE:
            return Encoded(self(mel))
        if context.mode == "sparse":
            return self._with_sparse_tail(mel, content_frames, SparseTail.after(whole, context.step))
        return self._with_silent_tail(mel, content_frames, whole)

    def _with_sparse_tail(self, mel: Tensor, content_frames: int, tail: SparseTail) -> Encoded:
        x = self._short_stem(mel, content_frames, tail.positions)
        return Encoded(self._run(x, tail.bias), tail.bias, approximate=True)

    def _with_silent_tail(self, mel: Tensor, content_frames: int, whole: int) -> Encoded:
        states, keys_values = self._silence
        x = self._short_stem(mel, content_frames, torch.arange(whole))
        x = self._run(x, more=[(k[:, :, whole:], v[:, :, whole:]) for k, v in keys_values])
        return Encoded(torch.cat([x, states[:, whole:]], dim=1), approximate=True)

    @cached_property
    def _silence(self) -> tuple[Tensor, list[KeysValues]]:
        """A window of pure silence, encoded once: states (1, 1500, d_model) and each layer's keys and values; 37 MB for
        base."""
        n_mels = self._modules.conv1.weight.shape[1]
        x = self._stem(torch.zeros(1, n_mels, POSITIONS * FRAMES_PER_POSITION)) + self._positions
        keys_values = []
        for layer in self._layers:
            qkv = layer.qkv(x)
            _, k, v = split_heads(to_host(qkv), self._heads)
            keys_values.append((k.contiguous(), v.contiguous()))
            x = layer.rest(qkv, x, None, None)
        return self._norm(x), keys_values

    def _run(self, x: Tensor, bias: Tensor | None = None, more: Sequence[KeysValues] | None = None) -> Tensor:
        """(batch, positions, d_model) through the layers and the final norm.

        `bias` (positions,) is added to attention's logits; `more` are each layer's keys and values besides its own.
        """
        for i, layer in enumerate(self._layers):
            x = layer.run(x, bias, more[i] if more else None)
        return self._norm(x)

    def _norm(self, x: Tensor) -> Tensor:
        states: Tensor = self._modules.layer_norm(to_host(x))
        return states

    def _stem(self, mel: Tensor) -> Tensor:
        x = mel.mT
        for conv in self._convolutions:
            x = conv(x)
        return to_host(x)

    def _short_stem(self, mel: Tensor, content_frames: int, positions: Tensor) -> Tensor:
        """The inputs (1, n, d_model) of the given positions, without the convolutions of silence.

        After the audio, log-mel frames are all equal, and so are positions from 3 frames on, except the last, which
        sees the edge. So a window cut 16 frames after the audio has one of each kind.
        """
        frames = min(-(-(content_frames + 16) // FRAMES_PER_POSITION) * FRAMES_PER_POSITION, mel.shape[2])
        x = self._stem(mel[:, :, :frames])
        last = x.shape[1] - 1
        source = torch.where(positions == POSITIONS - 1, last, positions.clamp(max=last - 1))
        return x[:, source] + self._positions[positions]
