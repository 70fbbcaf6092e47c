"""Whisper's decoder, one cached step at a time, over the model's own weights.

Every product runs on one backend. A batch row is one text: its self-attention cache grows with the text, its
cross-attention K/V cache is computed once from the encoder states. Knows tokens only as integers; see `batch`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine.decoding.pages import PAGE_TOKENS, PagePool
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.routing.modules import fuse, norm_of
from tilewhisper.engine.routing.prepared import WeightPreparation
from tilewhisper.kernels.decoder import DecoderBackend, DecoderLayer, PagedKV, RowsInFile
from tilewhisper.models.checkpoint.stored_tensor import TableInFile, exact_rows, whole

MAX_TOKENS_PER_CALL = 512
"""Tokens that go through the layers in one call, unless one row alone has more, so that the prompts of many windows do
not take memory without bound: 512 tokens of base take 15 MB."""

PROBABLE = 8
"""Logits of a row that `make_exact` makes exact besides those that are asked for. With all others in 4 bits,
log(sum of e^logit) is off by less than 0.03 times their probability."""


@dataclass(frozen=True)
class CrossKV:
    """One window's cross-attention K/V cache: the backend's own handle for each layer."""

    layers: tuple[Any, ...]


class DecoderState:
    """The caches of a batch, whose rows come and go: self-attention's in pages, and each row's window."""

    def __init__(self, pool: PagePool) -> None:
        """Without rows; `pool` has the pages of this state alone."""
        self.windows: list[CrossKV] = []
        self.lengths: list[int] = []
        self._pages: list[list[int]] = []
        self._pool = pool

    def add(self, windows: Sequence[CrossKV]) -> None:
        """Append rows without tokens."""
        self.windows += windows
        self.lengths += [0] * len(windows)
        self._pages += [[] for _ in windows]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated, and shares its pages with its repetitions."""
        if [*rows] == [*range(len(self.windows))]:
            return
        uses = Counter(rows)
        for row, pages in enumerate(self._pages):
            if uses[row] > 1:
                self._pool.share(pages, uses[row] - 1)
            elif not uses[row]:
                self._pool.release(pages)
        self.windows = [self.windows[row] for row in rows]
        self.lengths = [self.lengths[row] for row in rows]
        self._pages = [[*self._pages[row]] for row in rows]

    def extend(self, ends: Sequence[int]) -> PagedKV:
        """The caches with pages for rows of `ends` tokens; a page that new tokens go to is held by no other row."""
        for pages, length, end in zip(self._pages, self.lengths, ends, strict=True):
            if begun := length % PAGE_TOKENS:
                pages[-1] = self._pool.own(pages[-1], begun)
            pages += [self._pool.take() for _ in range(len(pages), -(-end // PAGE_TOKENS))]
        return PagedKV(self._pool.slabs, self._pages, self.lengths)


class Decoder:
    """The decoder of one transformers Whisper model (its `WhisperDecoder`)."""

    def __init__(self, modules: Any, backend: DecoderBackend, preparation: WeightPreparation | None = None) -> None:
        """`preparation` finds weights that an earlier start prepared."""
        embedding: Tensor = modules.embed_tokens.weight
        self._positions = whole(modules.embed_positions.weight)
        self._norm = norm_of(modules.layer_norm)
        self.backend = backend
        own = modules.layers[0].self_attn
        self._heads, self._head_dim = int(own.num_heads), int(own.head_dim)
        weights = _DecoderWeights(backend, preparation or WeightPreparation())
        self._lm_head = weights.lm_head(embedding)
        rows = exact_rows(embedding)
        self._embedding = RowsInFile(*rows) if isinstance(rows, TableInFile) else rows
        self._cross_kv_weights = [weights.cross_kv(layer, i) for i, layer in enumerate(modules.layers)]
        self._layers = backend.prepare_layers([weights.layer(layer, i) for i, layer in enumerate(modules.layers)])

    @property
    def text_context(self) -> int:
        """The most tokens of a window, prompt included."""
        return len(self._positions)

    @torch.inference_mode()
    def project_cross_kv(self, window: Encoded) -> CrossKV:
        """Compute a window's cross-attention K/V cache, once for all attempts at it."""
        project, heads = self.backend.project_cross_kv, self._heads
        return CrossKV(
            tuple(project(window.states, prepared, heads, window.bias) for prepared in self._cross_kv_weights)
        )

    @torch.inference_mode()
    def start(self) -> DecoderState:
        """The caches of an empty batch."""
        return DecoderState(PagePool(len(self._cross_kv_weights), self._heads, self._head_dim))

    @torch.inference_mode()
    def step(self, tokens: Sequence[Sequence[int]], state: DecoderState) -> Tensor:
        """Append one or more tokens to each row; return the final norm's output for each token, row after row.

        (tokens, d_model). Raises IndexError where a row would exceed the text context.
        """
        new = [len(row) for row in tokens]
        ends = [length + more for length, more in zip(state.lengths, new, strict=True)]
        if (longest := max(ends)) > self.text_context:
            raise IndexError(f"a row must have at most {self.text_context} tokens, got {longest}")
        caches = state.extend(ends)
        places = [place for span in zip(state.lengths, ends, strict=True) for place in range(*span)]
        x = self.backend.embed([*chain(*tokens)], places, self._embedding, self._positions)
        windows = [window.layers for window in state.windows]
        slices = [*_split(new, MAX_TOKENS_PER_CALL)]
        parts = [
            self.backend.decoder_layers(part, self._layers, caches.of_rows(rows), new[rows], windows[rows])
            for rows, part in zip(slices, x.split([sum(new[rows]) for rows in slices]), strict=True)
        ]
        state.lengths = ends
        return self.backend.norm(parts[0] if len(parts) == 1 else torch.cat(parts), self._norm)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Outputs of `step` (..., d_model) to logits (..., n_vocab), exact enough to find the candidates.

        `rescore` makes the candidates' logits exact, `make_exact` those of some tokens.
        """
        return self.backend.logits(hidden, self._lm_head)

    @torch.inference_mode()
    def make_exact(self, logits: Tensor, hidden: Tensor, tokens: Sequence[int]) -> None:
        """Make logits (rows, n_vocab) of outputs (rows, d_model) exact, in place, for `tokens` and the most probable
        tokens of each row, so that the probabilities of `tokens` are accurate."""
        self.rescore(logits, hidden, logits.shape[1], PROBABLE)
        chosen = torch.tensor(tokens, dtype=torch.int64)
        weight = self._embedding[chosen] if isinstance(self._embedding, Tensor) else self._embedding.pick(chosen)
        weight = weight.float()
        for row, output in zip(logits, hidden, strict=True):  # one by one: the bits must not depend on other rows
            row[chosen] = weight @ output

    @torch.inference_mode()
    def rescore(self, logits: Tensor, hidden: Tensor, split: int, top: int = 1, lowered: int = 0) -> None:
        """Make logits (rows, n_vocab) of outputs (rows, d_model) exact, in place, wherever a token may be among the
        `top` largest; see `DecoderBackend.rescore`. Masked tokens must be -inf already."""
        self.backend.rescore(logits, hidden, self._lm_head, self._embedding, split, top, lowered)


def _split(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Consecutive slices whose sizes add up to at most `most`, or hold a single larger item."""
    first = total = 0
    for i, size in enumerate(sizes):
        if i > first and total + size > most:
            yield slice(first, i)
            first, total = i, 0
        total += size
    yield slice(first, len(sizes))


@dataclass(frozen=True)
class _DecoderWeights:
    """Prepares a decoder's weights for its backend."""

    backend: DecoderBackend
    preparation: WeightPreparation

    def lm_head(self, embedding: Tensor) -> Any:
        """The output projection, which is the token embedding."""
        return self.preparation.lm_head(self.backend, "decoder.embed_tokens", embedding)

    def cross_kv(self, layer: Any, index: int) -> Any:
        """The fused k and v projections of cross-attention."""
        cross = layer.encoder_attn
        name = f"decoder.layers.{index}.encoder_attn.{{k_proj,v_proj}}"
        return self.preparation.cross_kv(self.backend, name, *fuse([cross.k_proj, cross.v_proj]))

    def layer(self, layer: Any, index: int) -> DecoderLayer:
        """One layer, with self-attention's q, k, v fused."""
        name, own, cross = f"decoder.layers.{index}", layer.self_attn, layer.encoder_attn
        projections = fuse([own.q_proj, own.k_proj, own.v_proj])
        return DecoderLayer(
            self_norm=norm_of(layer.self_attn_layer_norm),
            qkv=self._prepared(f"{name}.self_attn.{{q_proj,k_proj,v_proj}}", *projections),
            self_out=self._linear(f"{name}.self_attn.out_proj", own.out_proj),
            cross_norm=norm_of(layer.encoder_attn_layer_norm),
            cross_query=self._linear(f"{name}.encoder_attn.q_proj", cross.q_proj),
            cross_out=self._linear(f"{name}.encoder_attn.out_proj", cross.out_proj),
            final_norm=norm_of(layer.final_layer_norm),
            fc1=self._linear(f"{name}.fc1", layer.fc1),
            fc2=self._linear(f"{name}.fc2", layer.fc2),
            scale=own.scaling,
        )

    def _linear(self, name: str, linear: Any) -> Any:
        return self._prepared(name, linear.weight, linear.bias)

    def _prepared(self, name: str, weight: Tensor, bias: Tensor | None) -> Any:
        return self.preparation.decoder_linear(self.backend, name, weight, bias)
