"""`tilewhisper cache`: what earlier starts have cached of models."""

import pytest
from conftest import require_weights

from tilewhisper import WhisperModel
from tilewhisper.kernels.cpu import build
from tilewhisper.models.checkpoint.cache_folder import CACHE


@pytest.fixture
def cached(tmp_path, monkeypatch) -> None:
    """tiny.en under policy int8."""
    if reason := build.why_unavailable():
        pytest.skip(reason)
    monkeypatch.setattr(CACHE, "path", tmp_path / "models")
    WhisperModel(require_weights("tiny.en"), policy="int8").close()


def test_cached_models_are_listed_and_cleared(tilewhisper, cached):
    listed = tilewhisper("cache")
    (row,) = [line for line in listed.out.splitlines() if line.startswith("tiny.en")]
    assert "int16, int8, w8a8" in row
    size = sum(file.stat().st_size for file in CACHE.path.rglob("*.safetensors"))
    assert size < 1.1 * 37_760_640  # bytes for each parameter
    assert f"{size / 1e6:.1f}" in row
    assert tilewhisper("cache", "tiny.en").out == listed.out
    cleared = tilewhisper("cache", "--clear")
    assert (cleared.status, "deleted" in cleared.out) == (0, True)
    assert list(CACHE.path.iterdir()) == []
    assert tilewhisper("cache").out == f"0 MB in {CACHE.path}\n"


def test_a_model_that_is_not_cached_is_an_error_that_names_those_that_are(tilewhisper, cached):
    finished = tilewhisper("cache", "base", "--clear")
    assert finished.status == 2
    assert finished.errors == [f"tilewhisper: error: nothing is cached of 'base' in {CACHE.path}: it has tiny.en"]
    assert list(CACHE.path.iterdir()) != []
