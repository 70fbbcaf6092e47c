"""The generation config of a checkpoint: suppressed tokens, alignment heads, and the limit of the first timestamp.

Some formats store it; for the others it is derived here as OpenAI's own decoder does.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.constants import TIMESTAMPS_PER_SECOND
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

MAX_INITIAL_TIMESTAMP_INDEX = TIMESTAMPS_PER_SECOND
"""A transcript starts at most 1.0 s into its window: 50 timestamps of 0.02 s."""


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of the decoder that come with the checkpoint.

    Tokens are ids, alignment heads are (decoder layer, head) pairs, and `max_initial_timestamp_index` is the largest
    allowed first timestamp in steps of 0.02 s, None for no limit.
    """

    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    alignment_heads: tuple[tuple[int, int], ...]
    max_initial_timestamp_index: int | None


def suppress_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids, ascending, that are always suppressed: text that is not spoken, and special tokens."""
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
    """The ids suppressed as the first token: a blank, and end-of-text."""
    return (*tokenizer.encode(" "), tokenizer.eot)


def alignment_heads(dims: catalog.Dims, file_stem: str = "") -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs of the official model with these dimensions.

    If two official models share the dimensions, `file_stem` selects one by name. For all other models, the result is
    every head in the second half of the decoder's layers.
    """
    sizes = [size for size in catalog.SIZES.values() if size.dims == dims]
    if len(sizes) > 1:
        named = catalog.official(catalog.short_name(file_stem))
        sizes = [size for size in sizes if size == named]
    if sizes:
        return sizes[0].alignment_heads
    _, _, layers, heads, _, _ = dims
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))


def derive(tokenizer: Tokenizer, dims: catalog.Dims, file_stem: str = "") -> GenerationConfig:
    """Derive the generation config of a checkpoint whose format stores none."""
    return GenerationConfig(
        suppress_tokens=suppress_tokens(tokenizer),
        begin_suppress_tokens=begin_suppress_tokens(tokenizer),
        alignment_heads=alignment_heads(dims, file_stem),
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
    )
