"""Whisper's decoder, one cached step at a time, over the model's own weights.

Every product runs on one backend. Keys and values live in the caches of a batch, a row for each text that is followed:
self-attention's grow with the text, cross-attention's are computed once from the encoder's states. Knows tokens only as
integers; see `decoding` for the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
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
    """The caches of a batch, whose rows come and go.

    Per layer, `self_keys` and `self_values` are (places, heads, room, head_dim), places for the batch's rows or more;
    each row's is filled up to its entry of `lengths`. `cross` has, for each row, what the backend keeps of the keys and
    values of the encoder's states.
    """

    self_keys: list[Tensor]
    self_values: list[Tensor]
    cross: list[list[Any]]
    lengths: list[int]

    def add(self, windows: Sequence[Heard]) -> None:
        """Rows without tokens, after the others."""
        self.lengths += [0] * len(windows)
        self._make_places(len(self.lengths))
        for layer, kept in zip(self.cross, zip(*(window.layers for window in windows), strict=True), strict=True):
            layer += kept

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come several times."""
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if not moved and len(rows) == len(self.lengths):
            return
        self.lengths = [self.lengths[row] for row in rows]
        self.cross = [[kept[row] for row in rows] for kept in self.cross]
        if not moved:
            return
        self._make_places(len(rows))
        places, sources = torch.tensor(moved).unbind(1)
        used = max(self.lengths[place] for place, _ in moved)
        for cache in (*self.self_keys, *self.self_values):
            cache[places, :, :used] = cache[sources, :, :used]

    def rows(self, first: int, last: int) -> "DecoderState":
        """Rows first..last-1, in the same caches."""
        return DecoderState(
            self_keys=[keys[first:last] for keys in self.self_keys],
            self_values=[values[first:last] for values in self.self_values],
            cross=[kept[first:last] for kept in self.cross],
            lengths=self.lengths[first:last],
        )

    def make_room(self, tokens: int, most: int) -> None:
        """For so many tokens in each row, of which there will never be more than `most`."""
        if tokens > (room := self.self_keys[0].shape[2]):
            self._pad(0, min(most, max(tokens, 2 * room)) - room)

    def _make_places(self, rows: int) -> None:
        if rows > (places := len(self.self_keys[0])):
            self._pad(rows - places, 0)

    def _pad(self, places: int, room: int) -> None:
        """By zeros: what is not filled must not be NaN."""
        more = (0, 0, 0, room, 0, 0, 0, places)
        self.self_keys = [F.pad(keys, more) for keys in self.self_keys]
        self.self_values = [F.pad(values, more) for values in self.self_values]


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
    def d_model(self) -> int:
        return self._embedding.shape[1]

    @property
    def text_context(self) -> int:
        """The most tokens a window can hold, prompt included."""
        return len(self._positions)

    @torch.inference_mode()
    def hear(self, window: Encoded) -> Heard:
        """A window's keys and values, for as many decodings as are wanted."""
        return Heard(tuple(layer.keep(window) for layer in self._layers))

    @torch.inference_mode()
    def start(self) -> DecoderState:
        """The caches of a batch without rows."""
        room = min(FIRST_ROOM, self.text_context)
        caches = [layer.empty_cache(room) for layer in self._layers]
        return DecoderState(caches, list(caches), cross=[[] for _ in caches], lengths=[])

    @torch.inference_mode()
    def join(self, state: DecoderState, windows: Sequence[Heard], prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Add a row for each window to the batch, and read its prompt. Windows may have different numbers of positions,
        prompts different lengths. The last layer's output for each: (prompt, d_model).

        Raises IndexError for a prompt that does not fit the text context.
        """
        state.add(windows)
        state.make_room(max(map(len, prompts), default=0), self.text_context)
        first, outputs = len(state.lengths) - len(windows), list[Tensor]()
        for _, alike in groupby(prompts, key=len):
            tokens = torch.tensor(list(alike))
            begin = first + len(outputs)
            end = begin + len(tokens)
            rows = state.rows(begin, end)
            outputs += self.step(tokens, rows)
            state.lengths[begin:end] = rows.lengths
        return outputs

    @torch.inference_mode()
    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append tokens (rows, new) to the caches; the last layer's output for each: (rows, new, d_model).

        Raises IndexError when the text context is full.
        """
        rows, new = tokens.shape
        if (end := max(state.lengths) + new) > self.text_context:
            raise IndexError(f"{end} tokens do not fit the text context of {self.text_context}")
        state.make_room(end, self.text_context)
        places = torch.tensor(state.lengths)[:, None] + torch.arange(new)
        x = F.embedding(tokens, self._embedding) + F.embedding(places, self._positions)
        for i, layer in enumerate(self._layers):
            x = layer(x, state.self_keys[i][:rows], state.self_values[i][:rows], state.cross[i], state.lengths)
        state.lengths = [length + new for length in state.lengths]
        return F.layer_norm(x, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps)

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

    def empty_cache(self, room: int) -> Tensor:
        return torch.zeros(0, self._heads, room, self._head_dim)

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
