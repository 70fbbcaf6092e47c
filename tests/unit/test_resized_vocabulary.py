"""Weights with more tokens than Whisper: added by a fine-tuning, or padding for faster products."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
import weight_writers
from conftest import SAMPLE, require_weights
from safetensors.torch import load_file, save_file
from test_cache import SIZES, write

from tilewhisper import WhisperModel
from tilewhisper.models.checkpoint import cache, loader
from tilewhisper.models.checkpoint.cache_folder import CACHE
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.errors import CheckpointError

EMBEDDINGS = "model.decoder.embed_tokens.weight"
ADDED = ("Tilewhisper", "<|happy|>", "Ω")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A transformers folder of random weights, and an empty cache."""
    monkeypatch.setattr(CACHE, "path", tmp_path / "cache")
    return write(tmp_path / "model", seed=0)


def resized(folder: Path, rows: int) -> torch.Tensor:
    """Append embeddings to `rows`, which win every choice of a token, and return the original ones."""
    state = load_file(folder / "model.safetensors")
    original = state[EMBEDDINGS]
    more = 1000 * torch.randn(rows - len(original), original.shape[1])
    save_file(state | {EMBEDDINGS: torch.cat([original, more])}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    return original


def add_tokens(folder: Path) -> None:
    """As `add_tokens` of transformers does: after the timestamps, where the tokenizer has these."""
    path = str(folder / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.add_tokens([f"<|{step * 0.02:.2f}|>" for step in range(1501)])
    assert tokenizer.get_vocab_size() == SIZES.vocab_size
    tokenizer.add_tokens(list(ADDED))
    tokenizer.save(path)


@pytest.mark.parametrize("added", [True, False], ids=["added tokens", "padding"])
def test_tokens_after_the_timestamps_are_left_out(added: bool, small: Path) -> None:
    expected = resized(small, 1792)
    if added:
        add_tokens(small)
    for checkpoint in (loader.load(small), cache.load(small), cache.load(small)):
        assert checkpoint.model.config.vocab_size == checkpoint.tokenizer.n_vocab == SIZES.vocab_size
        assert torch.equal(whole(checkpoint.model.model.decoder.embed_tokens.weight), expected)
        assert checkpoint.tokenizer.decode([72, 105]) == "Hi"


def test_a_vocabulary_with_a_list_of_added_tokens_is_read(small: Path) -> None:
    """Folders of transformers' slow tokenizer."""
    expected = resized(small, 1800)
    tokenizer = json.loads((small / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    (small / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (small / "added_tokens.json").write_text(json.dumps(special | {"Tilewhisper": SIZES.vocab_size}))
    (small / "tokenizer.json").unlink()
    checkpoint = loader.load(small)
    assert torch.equal(whole(checkpoint.model.model.decoder.embed_tokens.weight), expected)


def test_a_pt_with_more_tokens_uses_the_tokenizer_beside_it(small: Path) -> None:
    expected = resized(small, 1792)
    path = weight_writers.write_openai(loader.load(small), small.parent / "own.pt", torch.float32)
    stored = torch.load(path)
    embeddings = load_file(small / "model.safetensors")[EMBEDDINGS]
    stored["model_state_dict"]["decoder.token_embedding.weight"] = embeddings
    torch.save(stored, path)
    shutil.copy(small / "tokenizer.json", path.parent)
    checkpoint = loader.load(path)
    assert torch.equal(whole(checkpoint.model.model.decoder.embed_tokens.weight), expected)


def test_tokens_added_in_the_place_of_timestamps_are_refused(small: Path) -> None:
    path = str(small / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.add_tokens(["Tilewhisper"])
    tokenizer.save(path)
    with pytest.raises(CheckpointError, match="'Tilewhisper' in the place of a timestamp"):
        loader.load(small)


@pytest.mark.slow
def test_a_resized_model_transcribes_as_before(tmp_path: Path) -> None:
    require_weights("tiny.en")
    tiny = loader.load("tiny.en")
    folder = weight_writers.write_ctranslate2(tiny, tmp_path / "resized")
    expected = [s.tokens for s in WhisperModel(str(folder), policy="torch").transcribe(str(SAMPLE))[0]]
    weight = tiny.model.model.decoder.embed_tokens.weight
    tiny.model.model.decoder.embed_tokens.weight = torch.nn.Parameter(
        torch.cat([whole(weight), 1000 * torch.randn(40, weight.shape[1])]), requires_grad=False
    )
    shutil.rmtree(folder)
    weight_writers.write_ctranslate2(tiny, folder)
    assert [s.tokens for s in WhisperModel(str(folder), policy="torch").transcribe(str(SAMPLE))[0]] == expected
