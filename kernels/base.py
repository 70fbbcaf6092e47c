"""The contract of a backend: where matrix products and the larger blocks of an encoder layer run.

Layouts are torch's own. A linear layer's weight is (n, k) and its product (m, k) @ (k, n) + (n,); a plain product is
(batch, m, k) @ (batch, k, n). All values are float32; prepared weights and norms are opaque to the caller.

A new backend implements `prepare`, `linear` and `matmul`. Every larger block has a default that is composed of smaller
ones, and each may be overridden alone:

    linear_gelu, linear_add       a product and what follows it; `linear_add` is output projection + residual
    norm_linear                   norm + q, k, v as one product
    qkv_attention                 attention over that product's result (or `attention`, over separate heads)
    feed_forward                  norm, fc1, GELU, fc2, residual
    encoder_layer                 all of a layer

*Activations* (x, residual, qkv and every result) are host tensors, unless the backend overrides `to_device` and
`to_host`: then they are its `DeviceTensor`s, which pass from block to block without coming back to the host. The caller
uploads a host tensor once, reads the last result back once, and never mixes the activations of two backends. Biases of
attention, masks and K/V from elsewhere are always host tensors.

Does not know layer names, models or policies. Errors and sizes are importable from here, so that a backend needs one
import; neither needs torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tilewhisper.kernels.errors import (
    BackendUnavailable,
    KernelError,
    ProductFailed,
    UnknownBackend,
    UnknownTarget,
    UnsupportedShape,
)
from tilewhisper.kernels.shapes import LayerShape, ProductShape, Settings, Usage

if TYPE_CHECKING:  # errors and sizes must not import torch
    from torch import Tensor

__all__ = [
    "Backend",
    "BackendUnavailable",
    "Block",
    "EncoderLayer",
    "KernelError",
    "LayerShape",
    "Norm",
    "ProductFailed",
    "ProductShape",
    "Settings",
    "UnknownBackend",
    "UnknownTarget",
    "UnsupportedShape",
    "Usage",
]

Block = Literal["attention", "feed_forward", "encoder_layer"]
"""The blocks of several products that a backend may run as one call."""

_METHODS: dict[Block, tuple[str, ...]] = {
    "attention": ("attention", "qkv_attention"),
    "feed_forward": ("feed_forward",),
    "encoder_layer": ("encoder_layer",),
}


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm's weight (k,), bias (k,) and epsilon."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize x (..., k), a host tensor, by torch."""
        import torch.nn.functional as F

        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, eq=False)
class EncoderLayer:
    """One pre-norm encoder layer: norms and weights as `prepare_norm` and `prepare` returned them."""

    attention_norm: Any
    qkv: Any
    """The q, k and v projections as one weight (3 * d_model, d_model)."""
    out: Any
    final_norm: Any
    fc1: Any
    fc2: Any
    heads: int
    scale: float
    """Factor of q k^T."""


class Backend(ABC):
    """Runs products. One instance serves all its sites; it may hold a device until `close`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line on the arithmetic, for tables."""
    for_speed: ClassVar[bool] = True
    """Whether it is meant to be fast: the autotuner tries such backends by default."""
    on_device: ClassVar[bool] = False
    """Whether products run on a device, by designs made for one size each, one call at a time."""

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str | None:
        """Reason this backend cannot run on this machine, or None. Must be cheap: `doctor` calls every backend's."""
        return None

    @classmethod
    def create(cls, settings: Settings) -> Backend:
        """A backend ready for work. Raises BackendUnavailable."""
        return cls()

    @property
    def label(self) -> str:
        """Its name in reports, which also says whether it is emulated."""
        return self.name

    @property
    def usage(self) -> Usage:
        """Device use so far; grows with every product."""
        return Usage()

    @cached_property
    def lock(self) -> AbstractContextManager[Any]:
        """Held by the caller during a block and when `usage` is read: a device serves one thread at a time."""
        return RLock() if self.on_device else nullcontext()

    def supports(self, shape: ProductShape) -> str | None:
        """Reason a product of this size cannot run here, or None. A pure function of the shape."""
        return None

    def supports_block(self, block: Block, shape: LayerShape) -> str | None:
        """Reason a block of this size must run as smaller ones, or None if it runs as one call. A pure function of the
        shape. Without an override: whether the backend has such a block of its own."""
        own = any(getattr(type(self), method) is not getattr(Backend, method) for method in _METHODS[block])
        return None if own else f"backend {self.name!r} runs {block} as smaller blocks"

    # Activations

    def to_device(self, x: Tensor) -> Tensor:
        """A host tensor of any strides as this backend's activation. Raises ProductFailed."""
        return x

    def to_host(self, x: Tensor) -> Tensor:
        """This backend's activation as a host tensor. Raises ProductFailed.

        Must work after a failed block, if the device's memory survived it: a fallback then takes over.
        """
        return x

    # Weights

    @abstractmethod
    def prepare(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Convert a weight (n, k) and bias (n,) for `linear`: once, after loading. May share their memory."""

    def prepare_norm(self, norm: Norm) -> Any:
        """Convert a norm for the blocks that begin with it. An override needs overrides of those blocks too."""
        return norm

    def prepare_conv(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Convert a convolution's weight (n, channels, taps) and bias (n,) for `conv_gelu`."""
        return self.prepare(weight.transpose(1, 2).flatten(1), bias)

    def prepare_layer(self, layer: EncoderLayer) -> Any:
        """Convert a layer for `encoder_layer`."""
        return layer

    # Storing prepared weights

    @property
    def packing(self) -> str | None:
        """What the form of prepared weights depends on besides the weights, so that a later start may use them again;
        None where they are not worth storing, or cannot be."""
        return None

    def to_stored(self, prepared: Any) -> Mapping[str, Tensor]:
        """The tensors of a prepared weight that its bias is not part of."""
        raise NotImplementedError(f"backend {self.name!r} has no form to store")

    def from_stored(self, tensors: Mapping[str, Tensor], n: int, bias: Tensor | None) -> Any:
        """The prepared weight of n rows from the tensors of `to_stored`, which it uses as they are, and its bias."""
        raise NotImplementedError(f"backend {self.name!r} has no form to store")

    # Products

    @abstractmethod
    def linear(self, x: Tensor, prepared: Any) -> Tensor:
        """x (..., k) times the prepared weight: a fresh activation (..., n). Raises ProductFailed, as all blocks do."""

    @abstractmethod
    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a (..., m, k) @ b (..., k, n): a fresh activation (..., m, n)."""

    # Blocks

    def linear_gelu(self, x: Tensor, prepared: Any) -> Tensor:
        """`linear`, then the exact (erf) GELU: (..., n)."""
        import torch.nn.functional as F

        return self.to_device(F.gelu(self.to_host(self.linear(x, prepared))))

    def linear_add(self, x: Tensor, prepared: Any, residual: Tensor) -> Tensor:
        """`linear` plus a residual of its result's shape: (..., n)."""
        return self.to_device(self.to_host(residual) + self.to_host(self.linear(x, prepared)))

    def norm_linear(self, x: Tensor, norm: Any, prepared: Any) -> Tensor:
        """`linear` of x's layer norm: (..., n)."""
        return self.linear(self.to_device(norm(self.to_host(x))), prepared)

    def conv_gelu(self, x: Tensor, prepared: Any, taps: int, stride: int) -> Tensor:
        """GELU of the convolution of x (batch, positions, channels), padded by zeros: contiguous (batch, ..., n).

        By default one product: a row of its left side is `taps` neighbouring positions, end to end.
        """
        import torch.nn.functional as F

        batch, positions, channels = x.shape
        padded = F.pad(self.to_host(x), (0, 0, taps // 2, taps // 2))
        rows = padded.as_strided(
            (batch, (positions - 1) // stride + 1, taps * channels), (padded.stride(0), stride * channels, 1)
        )
        return self.linear_gelu(self.to_device(rows), prepared)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        """softmax(scale * q k^T + bias) v: all host tensors, any strides; the result has q's shape.

        q is (batch, heads, m, head_dim); k and v are (batch, heads, n, head_dim). `bias` (n,) is added to every row of
        q k^T: -inf masks a key, log(c) weighs it as c equal keys.
        """
        products = self.to_host(self.matmul(self.to_device(q), self.to_device(k.mT)))
        weights = self.to_device(attention_weights(products, scale, bias))
        return self.to_host(self.matmul(weights, self.to_device(v)))

    def qkv_attention(
        self,
        qkv: Tensor,
        heads: int,
        scale: float,
        bias: Tensor | None = None,
        more: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Self-attention of qkv (batch, positions, 3 * d_model), q before k before v: (batch, positions, d_model).

        `bias` (keys,) is as in `attention`; `more` are keys and values (batch, heads, n, head_dim) that follow the
        positions' own, for attention only: both on the host.
        """
        q, k, v = split_heads(self.to_host(qkv), heads, more)
        return self.to_device(join_heads(self.attention(q, k, v, scale, bias)))

    def feed_forward(self, x: Tensor, norm: Any, fc1: Any, fc2: Any) -> Tensor:
        """x (..., k) plus fc2(GELU(fc1(norm of x))): a fresh activation (..., k)."""
        normed = self.to_device(norm(self.to_host(x)))
        return self.linear_add(self.linear_gelu(normed, fc1), fc2, x)

    def encoder_layer(
        self, x: Tensor, layer: Any, bias: Tensor | None = None, more: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """x (batch, positions, d_model) through a layer from `prepare_layer`: a fresh activation of that shape.

        `bias` and `more` are as in `qkv_attention`.
        """
        qkv = self.norm_linear(x, layer.attention_norm, layer.qkv)
        attended = self.qkv_attention(qkv, layer.heads, layer.scale, bias, more)
        x = self.linear_add(attended, layer.out, x)
        return self.feed_forward(x, layer.final_norm, layer.fc1, layer.fc2)

    def close(self) -> None:  # noqa: B027 (a host backend holds nothing)
        """Release what the backend holds. It cannot be used afterwards."""


def attention_weights(products: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """The softmax between attention's products: q k^T (..., m, n), a bias (n,) for each key."""
    import torch

    logits = products * scale
    return torch.softmax(logits if bias is None else logits + bias, dim=-1)


def split_heads(qkv: Tensor, heads: int, more: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Views q, k, v (batch, heads, positions, head_dim) of qkv (batch, positions, 3 * d_model), `more` K/V appended."""
    import torch

    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    if more is None:
        return q, k, v
    return q, torch.cat([k, more[0]], dim=2), torch.cat([v, more[1]], dim=2)


def join_heads(x: Tensor) -> Tensor:
    """(batch, heads, positions, head_dim) to (batch, positions, heads * head_dim)."""
    return x.transpose(1, 2).flatten(2)
