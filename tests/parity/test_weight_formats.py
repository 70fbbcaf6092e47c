"""The command on the same weights in every format: the same tokens, and the spoken words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import weight_writers
from conftest import require_weights

from tilewhisper.engine.commands.main import main
from tilewhisper.engine.tuning.transformers_whisper import transformers_model
from tilewhisper.models.checkpoint import loader
from tilewhisper.models.checkpoint.loader import Checkpoint

SPOKEN = "ask not what your country can do for you"


def hf(model: Checkpoint, folder: Path) -> Path:
    transformers_model(model).save_pretrained(folder)
    shutil.copy(model.source.folder / "tokenizer.json", folder)
    return folder


FORMATS: dict[str, Callable[[Checkpoint, Path], Path]] = {
    "transformers": hf,
    "openai": lambda model, folder: weight_writers.write_openai(model, folder / "own.pt", torch.float16),
    "ggml": lambda model, folder: weight_writers.write_ggml(model, folder / "ggml.bin", "f16"),
}


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def packaged(request, shared, tmp_path_factory):
    """A packaged model, and the tokens and text that the command gives with it."""
    name = require_weights(request.param)
    return loader.load(name), transcribe(name, shared / "jfk.flac", tmp_path_factory.mktemp("packaged"))


def transcribe(model: str | Path, file: Path, folder: Path) -> tuple[list[int], str]:
    arguments = ("--model", str(model), "--language", "en", "-f", "json", "-o", str(folder))
    assert main(["transcribe", str(file), *arguments]) == 0
    content = json.loads((folder / f"{file.stem}.json").read_text())
    return [token for segment in content["segments"] for token in segment["tokens"]], content["text"]


@pytest.fixture
def folder(tmp_path):
    """Deleted after each test, because the weights of base take 290 MB as float32."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_transcript_has_the_spoken_words(packaged):
    assert SPOKEN in packaged[1][1].replace(",", "")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tokens(packaged, name, shared, folder):
    model, expected = packaged
    (folder / "model").mkdir()
    assert transcribe(FORMATS[name](model, folder / "model"), shared / "jfk.flac", folder) == expected
