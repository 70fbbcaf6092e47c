"""The model that is used where none is named."""

import logging
from pathlib import Path

import pytest
from conftest import require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine import whisper_model
from tilewhisper.models.checkpoint import default
from tilewhisper.models.checkpoint.catalog import SIZES
from tilewhisper.models.checkpoint.locate import Source, locate
from tilewhisper.models.errors import ModelNotFound


def finder(*names: str):
    """`find_installed` on a machine where these models are installed."""
    return lambda name: Source("hf", name, Path(), (), "here") if name in names else None


@pytest.mark.parametrize(
    ("installed", "name", "reason"),
    [
        (("tiny.en", "base"), "base", "default, multilingual"),
        (("tiny", "base"), "base", "default, multilingual"),
        (("medium", "small", "tiny.en"), "small", "default, multilingual"),
        (("small", "tiny"), "tiny", "default, multilingual"),
        (("base.en", "tiny.en"), "tiny.en", "default, as no multilingual model is installed"),
        (("medium.en",), "medium.en", "default, as no multilingual model is installed"),
    ],
)
def test_an_installed_multilingual_model_comes_first(installed, name, reason):
    found = default.installed_default(find=finder(*installed))
    assert (found.name, found.reason) == (name, reason)


@pytest.mark.parametrize("installed", [(), ("tiny.en", "base.en")])
def test_english_only_models_are_no_default_for_other_languages(installed):
    assert default.installed_default(multilingual=True, find=finder(*installed)) is None


def test_every_official_model_can_be_the_default():
    assert {default.installed_default(find=finder(name)).name for name in SIZES} == set(SIZES)


def test_without_any_model_the_multilingual_one_is_located(monkeypatch):
    monkeypatch.setattr(default, "installed_default", lambda **_: None)
    monkeypatch.setattr(default, "locate", lambda name, _: Source("hf", name, Path(), (), "Hugging Face hub"))
    assert default.default_model().name == default.default_name() == "base"
    assert default.default_model().reason == "default, as no model is installed"


def test_a_default_that_cannot_be_had_names_the_remedy(monkeypatch):
    def refuse(name, _):
        raise ModelNotFound(f"model {name!r} was not found")

    monkeypatch.setattr(default, "installed_default", lambda **_: None)
    monkeypatch.setattr(default, "locate", refuse)
    with pytest.raises(ModelNotFound, match="no multilingual model is installed: model 'base' was not found"):
        default.default_model(multilingual=True)


def test_the_python_default_is_the_commands(monkeypatch):
    monkeypatch.setattr(whisper_model, "default_model", lambda _: locate(require_weights("base")))
    with WhisperModel(policy="torch") as model:
        assert (model.checkpoint.name, model.is_multilingual) == ("base", True)


@pytest.mark.parametrize(("arguments", "notes"), [((), 1), (("tiny.en",), 0)])
def test_an_english_only_default_is_logged(monkeypatch, caplog, arguments, notes):
    monkeypatch.setattr(whisper_model, "default_model", lambda _: locate(require_weights("tiny.en")))
    with caplog.at_level(logging.WARNING), WhisperModel(*arguments, policy="torch"):
        assert caplog.text.count("tiny.en understands only English") == notes
