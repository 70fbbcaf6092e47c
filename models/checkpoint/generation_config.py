"""What a checkpoint tells the decoder beside its weights: tokens never to choose, heads that follow time.

Some formats store these facts; for the others they are derived here, as OpenAI's own decoder does.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

MAX_INITIAL_TIMESTAMP_INDEX = 50
"""A transcript starts at most 1.0 s into its window: 50 timestamps of 0.02 s."""


@dataclass(frozen=True)
class GenerationConfig:
    """Token ids and (decoder layer, head) pairs; `max_initial_timestamp_index` counts timestamps, None is no limit."""

    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    alignment_heads: tuple[tuple[int, int], ...]
    max_initial_timestamp_index: int | None


def suppress_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids, ascending, never chosen: what nobody says, and special tokens that have no place in a transcript."""
    specials = (
        tokenizer.transcribe,
        tokenizer.translate,
        tokenizer.sot,
        tokenizer.sot_prev,
        tokenizer.sot_lm,
        tokenizer.no_speech,
    )
    return tuple(sorted({*tokenizer.non_speech_tokens(), *specials}))


def begin_suppress_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids not chosen first: a blank, and the end."""
    return (*tokenizer.encode(" "), tokenizer.eot)


def alignment_heads(dims: catalog.Dims, file_stem: str = "") -> tuple[tuple[int, int], ...]:
    """(layer, head) pairs of the official size with these dimensions; of two such, the one the file is named
    after. For any other model all heads of the last half of the decoder's layers."""
    sizes = [size for size in catalog.SIZES.values() if size.dims == dims]
    if len(sizes) > 1:
        named = catalog.official(file_stem.removeprefix("ggml-"))
        sizes = [size for size in sizes if size == named]
    if sizes:
        return sizes[0].alignment_heads
    _, _, layers, heads, _, _ = dims
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))


def derive(tokenizer: Tokenizer, dims: catalog.Dims, file_stem: str = "") -> GenerationConfig:
    """The facts of a checkpoint whose format stores none."""
    return GenerationConfig(
        suppress_tokens=suppress_tokens(tokenizer),
        begin_suppress_tokens=begin_suppress_tokens(tokenizer),
        alignment_heads=alignment_heads(dims, file_stem),
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
    )
