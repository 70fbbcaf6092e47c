"""Build tokenizers from a `tokenizer.json`, or from a bare vocabulary for formats that have no more.

Whisper's text tokens are byte sequences in the order their merges were learnt ("rank order"). The special tokens follow
in a fixed order, so the byte sequences and the total number of tokens determine the tokenizer.
The library tokenizers is imported by the functions that use it: loading from the cache needs none of them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.json_file import read_object
from tilewhisper.models.tokenizer.languages import LANGUAGES
from tilewhisper.models.tokenizer.tokenizer import Tokenizer, byte_letters

if TYPE_CHECKING:
    import tokenizers

_EOT = "<|endoftext|>"
_AFTER_LANGUAGES = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_OTHER_SPECIALS = 2 + len(_AFTER_LANGUAGES) + TIMESTAMPS  # with end-of-text and start-of-transcript, before languages


def from_file(path: Path, n_vocab: int) -> Tokenizer:
    """Read a `tokenizer.json`. Raises CheckpointError.

    Widespread files of the multilingual vocabulary lack its first merge, "Ġ t", and encode some words differently from
    Whisper's training data (" types" becomes " ", "ty", "pes"). If a file's merges do not produce all of its tokens,
    the merges are derived from the rank order instead.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no tokenizer beside the weights; copy the checkpoint's tokenizer.json there")
    import tokenizers

    try:
        model = read_object(path)["model"]
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
        _repair(tokenizer, model)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(
            f"{path}: not a tokenizer: {' '.join(str(error).split())}; copy the checkpoint's tokenizer.json there"
        ) from error
    return Tokenizer.wrap(tokenizer, n_vocab)


def _repair(tokenizer: tokenizers.Tokenizer, model: Mapping[str, Any]) -> None:
    """Derive the merges of a `tokenizer.json` that lacks some; see `from_file`."""
    from tokenizers import models

    if model["type"] == "BPE":
        merged = {"".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]}
        names = [name for name in sorted(model["vocab"], key=model["vocab"].get) if not name.startswith("<|")]
        if any(len(name) > 1 and name not in merged for name in names):
            tokenizer.model = models.BPE(vocab=model["vocab"], merges=list(_merges(names)))


def build(tokens: Sequence[bytes], n_vocab: int) -> Tokenizer:
    """Build the tokenizer of a model with `n_vocab` logits from its text tokens in rank order.

    The number of languages follows from `n_vocab`. Raises CheckpointError if `tokens` and `n_vocab` do not fit.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    if tokens and tokens[-1] == _EOT.encode():  # some files count it among the text tokens
        tokens = tokens[:-1]
    languages = n_vocab - len(tokens) - _OTHER_SPECIALS
    if not 1 <= languages <= len(LANGUAGES):
        raise CheckpointError(
            f"a vocabulary of {len(tokens)} text tokens does not fit weights with {n_vocab} tokens: "
            "take both from the same checkpoint"
        )
    letters = byte_letters()
    names = ["".join(letters[byte] for byte in token) for token in tokens]
    if not set(letters) <= set(names) or len(set(names)) != len(names):
        raise CheckpointError(
            "the vocabulary is corrupt: it lacks single bytes or has duplicate tokens; download the checkpoint again"
        )
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={name: rank for rank, name in enumerate(names)}, merges=list(_merges(names)))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    codes = list(LANGUAGES)[:languages]
    specials = ["startoftranscript", *codes, *_AFTER_LANGUAGES]
    tokenizer.add_special_tokens([_EOT, *(f"<|{name}|>" for name in specials)])
    return Tokenizer.wrap(tokenizer, n_vocab)


def _merges(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Merge rules that rank order implies: each pair of tokens that joins to a third, by the rank of the third."""
    known = set(names)
    for name in names:
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in known and right in known:
                yield left, right


def text_tokens(path: Path) -> list[bytes]:
    """Read the text tokens of a vocabulary file, in rank order. Raises CheckpointError."""
    try:
        if path.suffix == ".tiktoken":
            lines = (line.split(b" ") for line in path.read_bytes().splitlines() if line)
            ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
            return sorted(ranks, key=ranks.__getitem__)
        stored = read_object(path)
        vocabulary: Mapping[str, int] = stored["model"]["vocab"] if path.name == "tokenizer.json" else stored
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        ordered = sorted(vocabulary, key=vocabulary.__getitem__)
        return [bytes(byte_of[letter] for letter in name) for name in ordered if not name.startswith("<|")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a Whisper vocabulary ({type(error).__name__}: {error}); copy the checkpoint's file there"
        ) from error
