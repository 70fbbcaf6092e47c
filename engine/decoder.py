"""Whisper's decoder, one cached step at a time, over the model's own weights.

Every product runs on one backend. Keys and values live in buffers of a batch of windows: self-attention's grow with the
text, cross-attention's are computed once from the encoder's states. Knows tokens only as integers;
see `decoding` for the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.engine.audio_context import Encoded
from tilewhisper.engine.routing import fuse, norm_of
from tilewhisper.kernels.base import DecoderLayer, StepBackend

FIRST_ROOM = 64
"""Tokens that a cache has room for at first; it doubles. Zeros for all 448 took 22 ms for 8 windows of base, as much as
five steps, and most windows of speech have fewer than 64."""


@dataclass(frozen=True)
class Heard:
    """One window as the decoder attends to it: what the backend keeps of its keys and values, layer by layer."""

    layers: tuple[Any, ...]


@dataclass
class DecoderState:
    """The caches of one batch of windows.

    Per layer, `self_keys` and `self_values` are (batch, heads, room, head_dim), filled up to each row's entry of
    `lengths`; `cross` has, for each row, what the backend keeps of the keys and values of the encoder's states.
    """

    self_keys: list[Tensor]
    self_values: list[Tensor]
    cross: list[list[Any]]
    lengths: list[int]

    def make_room(self, tokens: int, most: int) -> None:
        """For so many tokens in each row, of which there will never be more than `most`."""
        if tokens > (room := self.self_keys[0].shape[2]):
            more = min(most, max(tokens, 2 * room)) - room
            self.self_keys = [F.pad(keys, (0, 0, 0, more)) for keys in self.self_keys]
            self.self_values = [F.pad(values, (0, 0, 0, more)) for values in self.self_values]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the batch, in this order; a row may come several times."""
        if list(rows) == list(range(len(self.lengths))):
            return
        self.lengths = [self.lengths[row] for row in rows]
        index, used = torch.tensor(rows), max(self.lengths)
        self.self_keys = [_gather(keys, index, used) for keys in self.self_keys]
        self.self_values = [_gather(values, index, used) for values in self.self_values]
        self.cross = [[windows[row] for row in rows] for windows in self.cross]

    def row(self, i: int) -> "DecoderState":
        """One row of the batch, in the same caches."""
        return DecoderState(
            self_keys=[keys[i : i + 1] for keys in self.self_keys],
            self_values=[values[i : i + 1] for values in self.self_values],
            cross=[[windows[i]] for windows in self.cross],
            lengths=[self.lengths[i]],
        )


def _gather(cache: Tensor, index: Tensor, used: int) -> Tensor:
    """Rows of a cache, of which only the first `used` tokens are copied: in place where there is room."""
    taken = cache[index, :, :used]
    if len(index) > len(cache):
        cache = cache.new_zeros(len(index), *cache.shape[1:])
    cache = cache[: len(index)]
    cache[:, :, :used] = taken
    return cache


class Decoder:
    """The decoder of one transformers Whisper model (its `WhisperDecoder`)."""

    def __init__(self, modules: Any, backend: StepBackend) -> None:
        self._embedding: Tensor = modules.embed_tokens.weight
        self._positions: Tensor = modules.embed_positions.weight
        self._norm = modules.layer_norm
        self._backend = backend
        self._embedding.data = backend.step_layout(self._embedding.data)
        self._vocabulary = backend.prepare_vocabulary(self._embedding)
        self._layers = [_DecoderLayer(layer, backend) for layer in modules.layers]

    @property
    def text_context(self) -> int:
        """The most tokens a window can hold, prompt included."""
        return len(self._positions)

    @torch.inference_mode()
    def hear(self, window: Encoded) -> Heard:
        """A window's keys and values, for as many decodings as are wanted."""
        return Heard(tuple(layer.keep(window) for layer in self._layers))

    @torch.inference_mode()
    def start(self, windows: Sequence[Heard]) -> DecoderState:
        """Empty caches over a batch of windows, which may have different numbers of positions."""
        room = min(FIRST_ROOM, self.text_context)
        caches = [layer.empty_cache(len(windows), room) for layer in self._layers]
        return DecoderState(
            self_keys=caches,
            self_values=[torch.zeros_like(cache) for cache in caches],
            cross=[list(kept) for kept in zip(*(window.layers for window in windows), strict=True)],
            lengths=[0] * len(windows),
        )

    @torch.inference_mode()
    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append tokens (batch, new) to the caches; the last layer's output for each: (batch, new, d_model).

        Raises IndexError when the text context is full.
        """
        new = tokens.shape[1]
        if (end := max(state.lengths) + new) > self.text_context:
            raise IndexError(f"{end} tokens do not fit the text context of {self.text_context}")
        state.make_room(end, self.text_context)
        places = torch.tensor(state.lengths)[:, None] + torch.arange(new)
        x = F.embedding(tokens, self._embedding) + F.embedding(places, self._positions)
        for i, layer in enumerate(self._layers):
            x = layer(x, state.self_keys[i], state.self_values[i], state.cross[i], state.lengths)
        state.lengths = [length + new for length in state.lengths]
        return F.layer_norm(x, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps)

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]], state: DecoderState) -> list[Tensor]:
        """Append a prompt to each row, of any lengths; the last layer's output for each row: (new, d_model)."""
        if len({len(prompt) for prompt in prompts}) == 1:
            return list(self.step(torch.tensor(prompts), state))
        ends = [length + len(prompt) for length, prompt in zip(state.lengths, prompts, strict=True)]
        state.make_room(max(ends), self.text_context)
        rows = [state.row(i) for i in range(len(prompts))]
        outputs = [self.step(torch.tensor([prompt]), row)[0] for prompt, row in zip(prompts, rows, strict=True)]
        state.lengths = [row.lengths[0] for row in rows]
        return outputs

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Outputs of `step` (..., d_model) to scores over the vocabulary (..., n_vocab).

        Exact enough to see which may be the likeliest; `settle` makes those exact.
        """
        return self._backend.scores(hidden, self._vocabulary)

    @torch.inference_mode()
    def settle(self, logits: Tensor, hidden: Tensor, timestamp_begin: int, keep: int = 1) -> None:
        """Make scores (batch, n_vocab) of outputs (batch, d_model) exact, in place, where a token may be one of the
        `keep` likeliest of text or of timestamps.

        To be called when the scores of tokens that must not come are -inf.
        """
        self._backend.settle(logits, hidden, self._vocabulary, timestamp_begin, keep)

    @torch.inference_mode()
    def likeliest(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row of scores (rows, n_vocab) the `count` largest, which they are, and log(sum of e^score)."""
        return self._backend.likeliest(scores, count)


class _DecoderLayer:
    """One layer's weights, with self-attention's q, k, v and cross-attention's k, v fused."""

    def __init__(self, layer: Any, backend: StepBackend) -> None:
        own, cross = layer.self_attn, layer.encoder_attn
        self._run = backend
        self._heads: int = own.num_heads
        self._head_dim: int = own.head_dim
        self._cross_kv = backend.prepare_for_windows(*fuse([cross.k_proj, cross.v_proj]))
        self._layer = DecoderLayer(
            own_norm=norm_of(layer.self_attn_layer_norm),
            qkv=backend.prepare(*fuse([own.q_proj, own.k_proj, own.v_proj], backend.step_layout)),
            own_out=_prepare(own.out_proj, backend),
            cross_norm=norm_of(layer.encoder_attn_layer_norm),
            cross_query=_prepare(cross.q_proj, backend),
            cross_out=_prepare(cross.out_proj, backend),
            final_norm=norm_of(layer.final_layer_norm),
            fc1=_prepare(layer.fc1, backend),
            fc2=_prepare(layer.fc2, backend),
            scale=own.scaling,
        )

    def empty_cache(self, batch: int, context: int) -> Tensor:
        return torch.zeros(batch, self._heads, context, self._head_dim)

    def keep(self, window: Encoded) -> Any:
        """The keys and values of a window's states."""
        return self._run.hear(window.states, self._cross_kv, self._heads, window.bias)

    def __call__(
        self, x: Tensor, keys: Tensor, values: Tensor, windows: Sequence[Any], lengths: Sequence[int]
    ) -> Tensor:
        """x (batch, new, d_model), what comes after `lengths` tokens of each row; the same shape."""
        return self._run.decoder_layer(x, self._layer, keys, values, lengths, windows)


def _prepare(linear: Any, backend: StepBackend) -> Any:
    """A layer's weight, laid out anew where it lies, so that there is no second copy, and prepared."""
    linear.weight.data = backend.step_layout(linear.weight.data)
    return backend.prepare(linear.weight, getattr(linear, "bias", None))
