"""The encoder's routable matrix products: names, sizes and kinds. Needs no torch and no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tilewhisper.models.constants import POSITIONS

if TYPE_CHECKING:
    from tilewhisper.models.checkpoint.config import ModelConfig


@dataclass(frozen=True)
class Site:
    """One routable product of the encoder: (batch, m, k) @ (batch, k, n), for one audio window.

    `name` is the checkpoint's own module name from the encoder's root, or `...self_attn.qk` / `.av` for the two
    products of activations; `kind` is "linear" if the right side is a weight, "matmul" if it is an activation, "conv"
    for a convolution of three taps as a product: a row of its left side is three frames end to end.
    """

    name: str
    batch: int
    m: int
    k: int
    n: int
    kind: Literal["linear", "matmul", "conv"]


def stem_sites(n_mels: int, d_model: int, positions: int = POSITIONS) -> tuple[Site, ...]:
    """The two convolutions before the layers, the second of stride 2."""
    return (
        Site("conv1", 1, 2 * positions, 3 * n_mels, d_model, "conv"),
        Site("conv2", 1, positions, 3 * d_model, d_model, "conv"),
    )


def encoder_sites(layers: int, d_model: int, heads: int, ffn: int, positions: int = POSITIONS) -> tuple[Site, ...]:
    """Every routable product of the layers in execution order; `positions` is the encoder's context (1500 for 30 s)."""
    head_size, rest = divmod(d_model, heads)
    if rest:
        raise ValueError(f"d_model {d_model} does not divide into {heads} heads")

    def layer_sites(prefix: str) -> Iterator[Site]:
        attention = f"{prefix}.self_attn"
        for projection in ("q_proj", "k_proj", "v_proj"):
            yield Site(f"{attention}.{projection}", 1, positions, d_model, d_model, "linear")
        yield Site(f"{attention}.qk", heads, positions, head_size, positions, "matmul")
        yield Site(f"{attention}.av", heads, positions, positions, head_size, "matmul")
        yield Site(f"{attention}.out_proj", 1, positions, d_model, d_model, "linear")
        yield Site(f"{prefix}.fc1", 1, positions, d_model, ffn, "linear")
        yield Site(f"{prefix}.fc2", 1, positions, ffn, d_model, "linear")

    return tuple(site for index in range(layers) for site in layer_sites(f"layers.{index}"))


def sites_of(config: ModelConfig) -> tuple[Site, ...]:
    """`stem_sites` and `encoder_sites` of a model; accepts a transformers configuration too."""
    return stem_sites(config.num_mel_bins, config.d_model, config.max_source_positions) + encoder_sites(
        layers=config.encoder_layers,
        d_model=config.d_model,
        heads=config.encoder_attention_heads,
        ffn=config.encoder_ffn_dim,
        positions=config.max_source_positions,
    )
