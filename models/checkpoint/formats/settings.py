"""Check the generation config that a checkpoint stores; derive what it lacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewhisper.models.checkpoint.generation_config import MAX_INITIAL_TIMESTAMP_INDEX, GenerationConfig
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


def checked(
    stored: Mapping[str, Any],
    suppressed: tuple[str, str],
    derived: GenerationConfig,
    tokenizer: Tokenizer,
    decoder: tuple[int, int],
    file: Path,
) -> GenerationConfig:
    """The settings of a JSON `file`; `suppressed` are its names of the two lists of suppressed tokens.

    `decoder` is its number of layers and of heads. An empty list suppresses nothing; a missing list is derived. Raises
    CheckpointError for values of a wrong type, and for tokens that do not exist.
    """
    first = stored.get("max_initial_timestamp_index", MAX_INITIAL_TIMESTAMP_INDEX)
    if not (first is None or _is_index(first)):
        raise CheckpointError(f"{file}: max_initial_timestamp_index must be a whole number >= 0; download it again")
    always, begin = suppressed
    return GenerationConfig(
        suppress_tokens=_tokens(stored, always, derived.suppress_tokens, tokenizer, file),
        begin_suppress_tokens=_tokens(stored, begin, derived.begin_suppress_tokens, tokenizer, file),
        alignment_heads=_heads(stored, derived.alignment_heads, decoder, file),
        max_initial_timestamp_index=first,
    )


def _tokens(
    stored: Mapping[str, Any], name: str, derived: tuple[int, ...], tokenizer: Tokenizer, file: Path
) -> tuple[int, ...]:
    tokens = stored.get(name)
    if tokens is None:
        return derived
    if not (isinstance(tokens, list) and all(_is_index(token) and token < tokenizer.n_vocab for token in tokens)):
        raise CheckpointError(
            f"{file}: {name} must be a list of token ids from 0 to {tokenizer.n_vocab - 1}; take the file and the "
            "tokenizer from the same checkpoint"
        )
    return tuple(tokens)


def _heads(
    stored: Mapping[str, Any], derived: tuple[tuple[int, int], ...], decoder: tuple[int, int], file: Path
) -> tuple[tuple[int, int], ...]:
    pairs = stored.get("alignment_heads") or []
    if not (isinstance(pairs, list) and all(map(_is_pair, pairs))):
        raise CheckpointError(f"{file}: alignment_heads must be a list of pairs [layer, head]; download it again")
    layers, heads = decoder
    if any(layer >= layers or head >= heads for layer, head in pairs):
        # Distilled models were published with the heads of their teacher, which has more layers.
        _log.info("%s: alignment_heads are of another model, so word times use other heads", file)
        return derived
    return tuple((layer, head) for layer, head in pairs) or derived


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_index, value))


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0
