"""What a backend is: a place where matrix products run.

Layouts are torch's own. A linear layer's weight is (n, k) and its product (m, k) @ (k, n) + (n,); a plain product is
(batch, m, k) @ (batch, k, n). Inputs and outputs are float32 tensors on the host; what a backend does in between
(round, pad, upload) is its business and its prepared weights are opaque to the caller.

Does not know layer names, models, or policies.

    KernelError
    ├── UnknownBackend        no backend of that name
    ├── UnknownTarget         no tile geometry or device profile of that name
    ├── BackendUnavailable    the backend cannot run on this machine
    ├── UnsupportedShape      a product that a geometry, device or profile cannot take
    ├── DesignError           a text that is no sound NPU design (in xdna/designs)
    └── ProductFailed         a product was started and did not finish well
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # errors and shapes are asked for before anything needs torch
    from collections.abc import Sequence

    from torch import Tensor


class KernelError(Exception):
    """Root of this room's errors. The text is for the user."""


class UnknownBackend(KernelError):  # noqa: N818 (reads as the fact it states, like FileNotFoundError)
    """No backend of that name."""


class UnknownTarget(KernelError):  # noqa: N818
    """No tile geometry or device profile of that name."""


class BackendUnavailable(KernelError):  # noqa: N818
    """The backend cannot run on this machine; the text says why and what would help."""


class UnsupportedShape(KernelError):  # noqa: N818
    """A product that a geometry, device or profile cannot take; the text names the limit with its figures."""


class ProductFailed(KernelError):  # noqa: N818
    """A product was started and did not finish well (time-out, lost device). A stated fallback may take over."""


@dataclass(frozen=True)
class ProductShape:
    """The size of one product (batch, m, k) @ (batch, k, n)."""

    batch: int
    m: int
    k: int
    n: int

    @property
    def multiply_adds(self) -> int:
        return self.batch * self.m * self.k * self.n

    def __str__(self) -> str:
        size = f"({self.m}, {self.k}) x ({self.k}, {self.n})"
        return size if self.batch == 1 else f"{self.batch} x {size}"


@dataclass(frozen=True)
class Usage:
    """What a backend has used of a device so far; zeros for a host backend."""

    calls: int = 0
    """Kernel calls, of which one product may take many."""
    device_seconds: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What a user may say about devices. Backends on the host take no notice."""

    npu: str = "auto"
    """`auto` is the real one, `emulated` an emulation of it: chosen by name, never as a substitute."""
    npu_kernels: str | None = None
    """The folder of built designs; None is the user's cache folder."""
    npu_fault: str | None = None
    """Of the emulated NPU, to try out fallbacks: `hang:N[,N…]` or `lost:N` at its N-th run, or `contexts`."""


@dataclass(frozen=True)
class Norm:
    """A layer norm's weight (k,), bias (k,) and epsilon."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., k), normed by torch"""
        import torch.nn.functional as F

        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Backend(ABC):
    """Runs products. One instance serves all sites that ask for it; it may hold a device until `close`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line on the arithmetic, for tables."""
    for_speed: ClassVar[bool] = True
    """Whether it is there to be fast: what the autotuner tries without being asked to."""

    on_device: ClassVar[bool] = False
    """Whether products run elsewhere than on the host, by designs made for one size each."""

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str | None:
        """Why this backend cannot run on this machine, or None when it can. Must be cheap: `doctor` asks every one."""
        return None

    @classmethod
    def create(cls, settings: Settings) -> Backend:
        """A backend ready for work. Raises BackendUnavailable."""
        return cls()

    @property
    def label(self) -> str:
        """What reports call it: the name, and whether it is the real thing."""
        return self.name

    @property
    def usage(self) -> Usage:
        """Grows with every product."""
        return Usage()

    def supports(self, shape: ProductShape) -> str | None:
        """Why a product of this size cannot run here, or None when it can. A pure function of the shape."""
        return None

    @abstractmethod
    def prepare(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Turn a weight (n, k) and bias (n,) into what `linear` wants: once, after loading. May share their memory."""

    @abstractmethod
    def linear(self, x: Tensor, prepared: Any) -> Tensor:
        """x (..., k) times the prepared weight: a fresh float32 tensor (..., n). Raises ProductFailed."""

    def linear_gelu(self, x: Tensor, prepared: Any) -> Tensor:
        """`linear`, then the exact (erf) GELU: (..., n)."""
        import torch.nn.functional as F

        return F.gelu(self.linear(x, prepared))

    def linear_add(self, x: Tensor, prepared: Any, residual: Tensor) -> Tensor:
        """`linear` plus a residual of its result's shape: (..., n)."""
        return residual + self.linear(x, prepared)

    def norm_linear(self, x: Tensor, norm: Norm, prepared: Any) -> Tensor:
        """`linear` of x's layer norm: (..., n)."""
        return self.linear(norm(x), prepared)

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Turn a convolution's weight (n, channels, taps) and bias (n,) into what `conv_gelu` wants."""
        return self.prepare(weight.transpose(1, 2).flatten(1), bias)

    def conv_gelu(self, x: Tensor, prepared: Any, taps: int, stride: int) -> Tensor:
        """GELU of the convolution of x (batch, positions, channels) with itself padded by zeros: dense (batch, ..., n).

        Here it is one product: `taps` neighbouring positions, end to end, are a row of its left side.
        """
        import torch.nn.functional as F

        batch, positions, channels = x.shape
        padded = F.pad(x, (0, 0, taps // 2, taps // 2))
        rows = padded.as_strided(
            (batch, (positions - 1) // stride + 1, taps * channels), (padded.stride(0), stride * channels, 1)
        )
        return self.linear_gelu(rows, prepared)

    @abstractmethod
    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a (..., m, k) @ b (..., k, n): a fresh float32 tensor (..., m, n). Raises ProductFailed."""

    def close(self) -> None:  # noqa: B027 (a host backend holds nothing)
        """Give back what the backend holds. Nothing may be run afterwards."""


class AttentionBackend(Backend):
    """A backend that can also run both attention products and the softmax between them as one pass."""

    @abstractmethod
    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        """softmax(scale * q k^T + bias) v for q (batch, heads, m, head_dim) and k, v (batch, heads, n, head_dim).

        `bias` (n,) is added to every row of scores: -inf hides a key, log(c) lets it stand for c of its kind.
        The result has q's shape, any strides.
        """


class BlockBackend(AttentionBackend):
    """A backend that can also run the feed-forward half of a layer as one pass."""

    @abstractmethod
    def feed_forward(self, x: Tensor, norm: Norm, fc1: Any, fc2: Any) -> Tensor:
        """x (..., k) plus fc2(GELU(fc1(norm of x))), of weights that `prepare` gave: a fresh tensor (..., k)."""


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer of a pre-norm decoder, its products as `prepare` gave them."""

    own_norm: Norm
    qkv: Any
    own_out: Any
    cross_norm: Norm
    cross_query: Any
    cross_out: Any
    final_norm: Norm
    fc1: Any
    fc2: Any
    scale: float
    """Of the scores."""


class DecoderBackend(AttentionBackend):
    """A backend that can also run a decoder: a few rows at a time, attention over keys and values that stay."""

    def decode_layout(self, weight: Tensor) -> Tensor:
        """A weight (n, k), in the layout from which `prepare` makes what is best for a few rows. Same values."""
        return weight.contiguous()

    def prepare_cross_kv(self, weight: Tensor, bias: Tensor | None) -> Any:
        """The same as `prepare`, for products with all of a window's positions, which come once."""
        return self.prepare(weight, bias)

    def prepare_lm_head(self, weight: Tensor) -> Any:
        """Turn the vocabulary's weight (n, k) into what `scores` and `settle` want."""
        return self.prepare(weight, None)

    def scores(self, x: Tensor, vocabulary: Any) -> Tensor:
        """x (..., k) to a score for every token (..., n), as exact as it takes to see which may be the likeliest."""
        return self.linear(x, vocabulary)

    def rescore(self, scores: Tensor, x: Tensor, vocabulary: Any, split: int, keep: int = 1) -> None:
        """Make the scores (rows, n) of x (rows, k) exact, in place, where a token may be one of the `keep` likeliest
        of its part of the row: before `split` or from there on.

        To be called when the scores of tokens that must not come are -inf already.
        """

    def top_k(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row of scores (rows, n) the `count` largest, largest first, which they are, and log(sum of e^score):
        (rows, count), (rows, count), (rows, 1).
        """
        # The largest of a row is found in a fifth of the time by `max`.
        largest, which = scores.max(dim=-1, keepdim=True) if count == 1 else scores.topk(count)
        return largest, which, scores.logsumexp(dim=-1, keepdim=True)

    @abstractmethod
    def pack_cross_kv(self, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Any:
        """Keys and values (batch, heads, n, head_dim), and a bias (n,) of each key, ready for many `attend` calls."""

    def project_cross_kv(self, states: Tensor, prepared: Any, heads: int, bias: Tensor | None = None) -> Any:
        """`keep` of a window's states (1, n, k) times a weight that `prepare_cross_kv` gave: (1, n, 2 * heads *
        head_dim), the keys before the values."""
        both = self.linear(states, prepared).unflatten(-1, (2, heads, -1))
        keys, values = (part.transpose(1, 2) for part in both.unbind(2))
        return self.pack_cross_kv(keys, values, bias)

    @abstractmethod
    def cross_attention(self, q: Tensor, kept: Any, scale: float) -> Tensor:
        """softmax(scale * q k^T + bias) v of queries (batch, heads, m, head_dim): (batch, m, heads * head_dim)."""

    @abstractmethod
    def self_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
        """Causal self-attention of new tokens: (batch, m, heads * head_dim).

        qkv (batch, m, 3 * heads * head_dim) joins the caches (batch, heads, context, head_dim), in place, after the
        `lengths` tokens that each row has already; each token attends to itself and all before it. What the caches
        hold beyond is not read as more than a number: it must not be NaN.
        """

    def prepare_layers(self, layers: Sequence[DecoderLayer]) -> Any:
        """Turn a decoder's layers into what `decoder_layers` wants."""
        return layers

    def decoder_layers(
        self,
        x: Tensor,
        layers: Any,
        keys: Tensor,
        values: Tensor,
        lengths: Sequence[int],
        new: Sequence[int],
        windows: Sequence[Sequence[Any]],
    ) -> Tensor:
        """New tokens through all layers that `prepare_layers` gave: x (tokens, d), `new` of each row of the batch one
        after the other, to (tokens, d).

        Their keys and values join the caches (layers, batch, heads, context, head_dim), each layer's dense, as in
        `self_attention`; `windows` has for each row what `keep` gave, layer by layer: one object for rows that stand in
        one window.
        """
        import torch

        done, row, token = [], 0, 0
        for count, alike in groupby(new):
            end = row + sum(1 for _ in alike)
            y = x[token : token + (end - row) * count].unflatten(0, (end - row, count))
            for i, layer in enumerate(layers):
                kept = [window[i] for window in windows[row:end]]
                y = self._decoder_layer(y, layer, keys[i, row:end], values[i, row:end], lengths[row:end], kept)
            done.append(y.flatten(0, 1))
            row, token = end, token + len(done[-1])
        return torch.cat(done)

    def _decoder_layer(
        self,
        x: Tensor,
        layer: DecoderLayer,
        keys: Tensor,
        values: Tensor,
        lengths: Sequence[int],
        windows: Sequence[Any],
    ) -> Tensor:
        import torch

        heads, head_dim = keys.shape[1], keys.shape[3]
        qkv = self.norm_linear(x, layer.own_norm, layer.qkv)
        x = self.linear_add(self.self_attention(qkv, keys, values, lengths, layer.scale), layer.own_out, x)
        q = self.norm_linear(x, layer.cross_norm, layer.cross_query).unflatten(-1, (heads, head_dim))
        found = runs(windows)
        attended = []
        for rows, (window, _) in zip(q.split([count for _, count in found]), found, strict=True):
            together = self.cross_attention(rows.flatten(0, 1)[None].transpose(1, 2), window, layer.scale)
            attended.append(together.view(len(rows), -1, heads * head_dim))
        x = self.linear_add(torch.cat(attended), layer.cross_out, x)
        return self.linear_add(self.linear_gelu(layer.final_norm(x), layer.fc1), layer.fc2, x)


def runs(windows: Sequence[Any]) -> list[tuple[Any, int]]:
    """Neighbours that are one object, and how many they are: rows that stand in one window attend to it together."""
    return [(next(same), 1 + sum(1 for _ in same)) for _, same in groupby(windows, key=id)]
