"""The contract of a backend that also runs Whisper's decoder: a few rows at a time, over cached keys and values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from tilewhisper.kernels.base import Backend, Norm

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer of a pre-norm decoder: weights as `prepare` returned them."""

    self_norm: Norm
    qkv: Any
    self_out: Any
    cross_norm: Norm
    cross_query: Any
    cross_out: Any
    final_norm: Norm
    fc1: Any
    fc2: Any
    scale: float
    """Factor of q k^T."""


class Rows(Protocol):
    """A weight (n, k) whose rows are computed when they are needed."""

    def pick(self, indices: Tensor) -> Tensor:
        """The rows of these indices (count,), as float32 (count, k)."""


class OpenFile(Protocol):
    """A file, open for reading."""

    descriptor: int
    offset: int
    """Bytes before what is read."""

    def rows(self, indices: Sequence[int], count: int, row_bytes: int) -> Tensor:
        """The bytes (len(indices), row_bytes) of some of `count` rows."""

    def unreadable(self) -> Exception:
        """The error to raise where a read has failed, for the user."""


@dataclass(frozen=True, eq=False)
class RowsInFile:
    """A weight (n, k) of which single rows are read from its file: those of its mapping would stay in memory."""

    mapped: Tensor
    """(n, k) float32, float16 or bfloat16, perhaps not aligned to its numbers."""
    file: OpenFile

    def pick(self, indices: Tensor) -> Tensor:
        """The rows of these indices (count,), as float32 (count, k)."""
        count, k = self.mapped.shape
        stored = self.file.rows(indices.tolist(), count, k * self.mapped.itemsize)
        return stored.view(self.mapped.dtype).float()


@dataclass(frozen=True, eq=False)
class PagedKV:
    """The self-attention K/V caches of a batch's rows, in pages of a few tokens, which rows may share.

    A page to which new tokens are written belongs to one row alone.
    """

    slabs: Sequence[Tensor]
    """Float32 (layers, 2, heads, pages, tokens of a page, head_dim) each, keys before values, all of one shape. Entries
    that no token has filled may be any number but NaN."""
    pages: Sequence[Sequence[int]]
    """Row by row, the pages that hold its tokens, the new ones of this call included. They are counted through all
    slabs: page p is page p % n of slab p // n."""
    lengths: Sequence[int]
    """Tokens in each row's cache before this call."""

    @property
    def heads(self) -> int:
        return self.slabs[0].shape[2]

    @property
    def head_dim(self) -> int:
        return self.slabs[0].shape[5]

    def of_rows(self, rows: slice) -> PagedKV:
        return PagedKV(self.slabs, self.pages[rows], self.lengths[rows])


class DecoderBackend(Backend):
    """A backend that also runs a decoder. All its tensors are on the host."""

    def decode_layout(self, weight: Tensor) -> Tensor:
        """A weight (n, k) in the layout from which `prepare` makes its best form for a few rows. Same values."""
        return weight.contiguous()

    def prepare_cross_kv(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Like `prepare`, for a product over all positions of a window, which runs once per window."""
        return self.prepare(weight, bias)

    def prepare_lm_head(self, weight: Tensor) -> Any:
        """Convert the output projection (n_vocab, k) for `logits` and `rescore`."""
        return self.prepare(weight, None)

    def embed(self, tokens: Sequence[int], places: Sequence[int], weight: Tensor | Rows, positions: Tensor) -> Tensor:
        """The decoder's input: rows `tokens` of the token embedding, plus rows `places` of `positions` (m, k): float32
        (tokens, k). `weight` is as for `rescore`."""
        import torch

        indices = torch.tensor(tokens, dtype=torch.int64)
        rows = weight[indices].float() if isinstance(weight, torch.Tensor) else weight.pick(indices)
        return rows + positions[torch.tensor(places, dtype=torch.int64)]

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        """The layer norm of x (tokens, k)."""
        return norm(x)

    def logits(self, x: Tensor, lm_head: Any) -> Tensor:
        """x (..., k) to logits (..., n_vocab), accurate enough to find the candidates that `rescore` makes exact."""
        return self.linear(x, lm_head)

    def rescore(
        self,
        logits: Tensor,
        x: Tensor,
        lm_head: Any,
        weight: Tensor | Rows,
        split: int,
        count: int = 1,
        lowered: int = 0,
    ) -> None:
        """Make the logits (rows, n_vocab) of x (rows, k) exact, in place, for every token that may be among the `count`
        largest of a row, even where a caller then makes up to `lowered` of them smaller.

        A row has two parts, the second from `split` on. Where the second part's tokens together may be more probable
        than the first part's largest, or so probable that their errors count, the `count` largest of each are exact;
        where they certainly are, only the second's (see `prefer_last_part`). With `split` n_vocab it is one part.

        `weight` is the output projection in float32, float16 or bfloat16, perhaps not aligned to its numbers, or what
        gives its rows: `RowsInFile` where its file has them. Suppressed tokens must be -inf already.
        """

    def mask(self, logits: Tensor, tokens: Tensor, spans: Sequence[tuple[int, int, int]]) -> None:
        """Set to -inf, in place, of logits (rows, n): `tokens` (count,) of all rows, and for each (row, first, end) of
        `spans` that row's logits from the first to before the end."""
        logits.index_fill_(1, tokens, -inf)
        for row, first, end in spans:
            logits[row, first:end] = -inf

    def prefer_last_part(self, logits: Tensor, split: int) -> None:
        """Set to -inf, in place, the logits before `split` of each row (rows, n) where all from there on are together
        more probable than the most probable one before."""
        _, _, last_part = self.top_k(logits[:, split:], 1)
        first_part = logits[:, :split]
        first_part.masked_fill_(last_part > first_part.amax(dim=1, keepdim=True), -inf)

    def top_k(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The `count` largest logits of each row (rows, n), largest first, their indices, and log(sum of e^logit):
        (rows, count), (rows, count), (rows, 1).
        """
        # `max` finds the largest of a row in a fifth of topk's time.
        values, indices = logits.max(dim=-1, keepdim=True) if count == 1 else logits.topk(count)
        return values, indices, logits.logsumexp(dim=-1, keepdim=True)

    @abstractmethod
    def pack_cross_kv(self, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Any:
        """Pack keys and values (batch, heads, n, head_dim) and a bias (n,) per key, for repeated `cross_attention`."""

    def project_cross_kv(self, states: Tensor, prepared: Any, heads: int, bias: Tensor | None = None) -> Any:
        """`pack_cross_kv` of a window's states (1, n, k) times a weight from `prepare_cross_kv`: (1, n, 2 * heads *
        head_dim), the keys before the values."""
        both = self.linear(states, prepared).unflatten(-1, (2, heads, -1))
        keys, values = (part.transpose(1, 2) for part in both.unbind(2))
        return self.pack_cross_kv(keys, values, bias)

    @abstractmethod
    def cross_attention(self, q: Tensor, cross_kv: Any, scale: float) -> Tensor:
        """softmax(scale * q k^T + bias) v of queries (batch, heads, m, head_dim): (batch, m, heads * head_dim)."""

    @abstractmethod
    def self_attention(self, qkv: Tensor, caches: PagedKV, layer: int, scale: float) -> Tensor:
        """Causal self-attention of new tokens in one layer: (batch, m, heads * head_dim).

        The keys and values of qkv (batch, m, 3 * heads * head_dim) are written into the caches, in place, after each
        row's tokens; each token attends to itself and all before it.
        """

    def prepare_layers(self, layers: Sequence[DecoderLayer]) -> Any:
        """Convert a decoder's layers for `decoder_layers`."""
        return layers

    def decoder_layers(
        self,
        x: Tensor,
        layers: Any,
        caches: PagedKV,
        new: Sequence[int],
        cross_kv: Sequence[Sequence[Any]],
    ) -> Tensor:
        """New tokens through all layers from `prepare_layers`: x (tokens, d), `new` tokens of each batch row one after
        the other, to (tokens, d).

        Their keys and values are written into the caches, as in `self_attention`. `cross_kv` has for each row what
        `pack_cross_kv` returned, layer by layer: the same object for rows of one window.
        """
        import torch

        done, row, token = [], 0, 0
        for count, alike in groupby(new):
            end = row + sum(1 for _ in alike)
            y = x[token : token + (end - row) * count].unflatten(0, (end - row, count))
            of_rows = caches.of_rows(slice(row, end))
            for i, layer in enumerate(layers):
                y = self._decoder_layer(y, layer, i, of_rows, [window[i] for window in cross_kv[row:end]])
            done.append(y.flatten(0, 1))
            row, token = end, token + len(done[-1])
        return torch.cat(done)

    def _decoder_layer(
        self, x: Tensor, layer: DecoderLayer, number: int, caches: PagedKV, cross_kv: Sequence[Any]
    ) -> Tensor:
        import torch

        heads, head_dim = caches.heads, caches.head_dim
        qkv = self.norm_linear(x, layer.self_norm, layer.qkv)
        x = self.linear_add(self.self_attention(qkv, caches, number, layer.scale), layer.self_out, x)
        q = self.norm_linear(x, layer.cross_norm, layer.cross_query).unflatten(-1, (heads, head_dim))
        windows = runs(cross_kv)
        attended = []
        for rows, (window, _) in zip(q.split([count for _, count in windows]), windows, strict=True):
            together = self.cross_attention(rows.flatten(0, 1)[None].transpose(1, 2), window, layer.scale)
            attended.append(together.view(len(rows), -1, heads * head_dim))
        x = self.linear_add(torch.cat(attended), layer.cross_out, x)
        return self.linear_add(self.linear_gelu(layer.final_norm(x), layer.fc1), layer.fc2, x)


def runs(cross_kv: Sequence[Any]) -> list[tuple[Any, int]]:
    """Neighbouring rows of one window, as (its object, number of rows): they attend to it together."""
    return [(next(same), 1 + sum(1 for _ in same)) for _, same in groupby(cross_kv, key=id)]
