"""Whisper's decoder, one cached step at a time, over the model's own weights.

Every product runs on one backend. Keys and values live in the caches of a batch, a row for each text that is followed:
self-attention's grow with the text, cross-attention's are computed once from the encoder's states. Knows tokens only as
integers; see `decoding` for the rules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.routing.modules import fuse, norm_of
from tilewhisper.kernels.decoder import DecoderBackend, DecoderLayer

ROOM = 64
"""Tokens that a cache has room for at first, and that it grows by; every row of a batch has the room of the longest.
Zeros for all 448 took 22 ms for 8 windows of base, as much as five steps, and most windows of speech have fewer."""

AT_ONCE = 512
"""Tokens that go through the layers together, at most, unless one row has more: so that the prompts of many windows do
not take memory without bound. 512 of base take 15 MB."""


@dataclass(frozen=True)
class CrossKV:
    """One window as the decoder attends to it: what the backend keeps of its keys and values, layer by layer."""

    layers: tuple[Any, ...]


@dataclass
class DecoderState:
    """The caches of a batch, whose rows come and go.

    `keys` and `values` of self-attention are (layers, places, heads, room, head_dim), places for the batch's rows or
    more; each row's are filled up to its entry of `lengths`. `windows` has what each row listens to.
    """

    keys: Tensor
    values: Tensor
    windows: list[CrossKV]
    lengths: list[int]

    def add(self, windows: Sequence[CrossKV]) -> None:
        """Rows without tokens, after the others."""
        self.windows += windows
        self.lengths += [0] * len(windows)
        self._make_places(len(self.lengths))

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come several times."""
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if not moved and len(rows) == len(self.lengths):
            return
        self.windows = [self.windows[row] for row in rows]
        self.lengths = [self.lengths[row] for row in rows]
        if not moved:
            return
        self._make_places(len(rows))
        places, sources = torch.tensor(moved).unbind(1)
        used = max(self.lengths[place] for place, _ in moved)
        for cache in (self.keys, self.values):
            cache[:, places, :, :used] = cache[:, sources, :, :used]

    def make_room(self, tokens: int, most: int) -> None:
        """For so many tokens in each row, of which there will never be more than `most`."""
        if tokens > (room := self.keys.shape[3]):
            self._pad(0, min(most, -(-tokens // ROOM) * ROOM) - room)

    def _make_places(self, rows: int) -> None:
        if rows > (places := self.keys.shape[1]):
            self._pad(rows - places, 0)

    def _pad(self, places: int, room: int) -> None:
        """By zeros: what is not filled must not be NaN."""
        more = (0, 0, 0, room, 0, 0, 0, places)
        self.keys = F.pad(self.keys, more)
        self.values = F.pad(self.values, more)


class Decoder:
    """The decoder of one transformers Whisper model (its `WhisperDecoder`)."""

    def __init__(self, modules: Any, backend: DecoderBackend) -> None:
        self._embedding: Tensor = modules.embed_tokens.weight
        self._positions: Tensor = modules.embed_positions.weight
        self._norm = modules.layer_norm
        self._backend = backend
        self._embedding.data = backend.decode_layout(self._embedding.data)
        self._vocabulary = backend.prepare_lm_head(self._embedding)
        own = modules.layers[0].self_attn
        self._heads, self._head_dim = int(own.num_heads), int(own.head_dim)
        self._cross_kv_weights = [_cross_kv_weights(layer.encoder_attn, backend) for layer in modules.layers]
        self._layers = backend.prepare_layers([_layer(layer, backend) for layer in modules.layers])

    @property
    def text_context(self) -> int:
        """The most tokens a window can hold, prompt included."""
        return len(self._positions)

    @torch.inference_mode()
    def project_cross_kv(self, window: Encoded) -> CrossKV:
        """A window's keys and values, for as many decodings as are wanted."""
        project, heads = self._backend.project_cross_kv, self._heads
        return CrossKV(
            tuple(project(window.states, prepared, heads, window.bias) for prepared in self._cross_kv_weights)
        )

    @torch.inference_mode()
    def start(self) -> DecoderState:
        """The caches of a batch without rows."""
        room = min(ROOM, self.text_context)
        empty = torch.zeros(len(self._cross_kv_weights), 0, self._heads, room, self._head_dim)
        return DecoderState(empty, empty, windows=[], lengths=[])

    @torch.inference_mode()
    def step(self, tokens: Sequence[Sequence[int]], state: DecoderState) -> Tensor:
        """Append tokens to the caches, one or more to each row; the last layer's output for each, row after row:
        (tokens, d_model).

        Raises IndexError when the text context is full.
        """
        new = [len(some) for some in tokens]
        ends = [length + more for length, more in zip(state.lengths, new, strict=True)]
        if (longest := max(ends)) > self.text_context:
            raise IndexError(f"{longest} tokens do not fit the text context of {self.text_context}")
        state.make_room(longest, self.text_context)
        ids = torch.tensor([token for some in tokens for token in some])
        places = torch.tensor([place for span in zip(state.lengths, ends, strict=True) for place in range(*span)])
        x = F.embedding(ids, self._embedding) + F.embedding(places, self._positions)
        windows, token = [window.layers for window in state.windows], 0
        for rows in _in_parts(new, AT_ONCE):
            part, caches = x[token : token + sum(new[rows])], (state.keys[:, rows], state.values[:, rows])
            part[:] = self._backend.decoder_layers(
                part, self._layers, *caches, state.lengths[rows], new[rows], windows[rows]
            )
            token += len(part)
        state.lengths = ends
        return F.layer_norm(x, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Outputs of `step` (..., d_model) to scores over the vocabulary (..., n_vocab).

        Exact enough to see which may be the likeliest; `settle` makes those exact.
        """
        return self._backend.logits(hidden, self._vocabulary)

    @torch.inference_mode()
    def rescore(self, logits: Tensor, hidden: Tensor, timestamp_begin: int, keep: int = 1) -> None:
        """Make scores (batch, n_vocab) of outputs (batch, d_model) exact, in place, where a token may be one of the
        `keep` likeliest of text or of timestamps.

        To be called when the scores of tokens that must not come are -inf.
        """
        self._backend.rescore(logits, hidden, self._vocabulary, timestamp_begin, keep)

    @torch.inference_mode()
    def top_k(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row of scores (rows, n_vocab) the `count` largest, which they are, and log(sum of e^score)."""
        return self._backend.top_k(scores, count)


def _in_parts(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Neighbours whose sizes come to `most` at the most, unless one alone is larger."""
    first = total = 0
    for i, size in enumerate(sizes):
        if i > first and total + size > most:
            yield slice(first, i)
            first, total = i, 0
        total += size
    yield slice(first, len(sizes))


def _layer(layer: Any, backend: DecoderBackend) -> DecoderLayer:
    """One layer's weights, with self-attention's q, k, v fused."""
    own, cross = layer.self_attn, layer.encoder_attn
    return DecoderLayer(
        own_norm=norm_of(layer.self_attn_layer_norm),
        qkv=backend.prepare(*fuse([own.q_proj, own.k_proj, own.v_proj], backend.decode_layout)),
        own_out=_prepare(own.out_proj, backend),
        cross_norm=norm_of(layer.encoder_attn_layer_norm),
        cross_query=_prepare(cross.q_proj, backend),
        cross_out=_prepare(cross.out_proj, backend),
        final_norm=norm_of(layer.final_layer_norm),
        fc1=_prepare(layer.fc1, backend),
        fc2=_prepare(layer.fc2, backend),
        scale=own.scaling,
    )


def _cross_kv_weights(cross: Any, backend: DecoderBackend) -> Any:
    """What makes a window's keys and values of its states."""
    return backend.prepare_cross_kv(*fuse([cross.k_proj, cross.v_proj]))


def _prepare(linear: Any, backend: DecoderBackend) -> Any:
    """A layer's weight, laid out anew where it lies, so that there is no second copy, and prepared."""
    linear.weight.data = backend.decode_layout(linear.weight.data)
    return backend.prepare(linear.weight, getattr(linear, "bias", None))
