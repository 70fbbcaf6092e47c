"""`tilewhisper convert`: what it writes and prints, and its errors."""

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper.models.checkpoint import export, loader


def test_a_converted_model_transcribes(tilewhisper, tmp_path):
    finished = tilewhisper(
        "convert", require_weights("tiny.en"), "--to", "ggml", tmp_path / "new", "--precision", "q8_0"
    )
    file = tmp_path / "new" / "ggml-tiny.en-q8_0.bin"
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.splitlines() == [f"      43.6 MB  {file}", "ggml, q8_0; loaded by whisper.cpp"]
    assert SAMPLE_WORDS in tilewhisper("transcribe", SAMPLE, "--model", file).out


QUANTISED = [
    ("ctranslate2", "int8", "cpu"),
    ("ctranslate2", "int16", "cpu"),
    *(("ggml", name, "cpu") for name in export.FORMATS["ggml"].precisions if name.startswith("q")),
    ("ggml", "q5_1", "int8"),
]


@pytest.mark.parametrize(("kind", "precision", "policy"), QUANTISED)
def test_a_quantised_model_transcribes(tilewhisper, tmp_path, kind, precision, policy):
    """Tokens are chosen by the file's own rows, and without timestamps none of these are among them."""
    made = tilewhisper("convert", require_weights("tiny.en"), "--to", kind, tmp_path / "new", "--precision", precision)
    (model,) = (tmp_path / "new").iterdir() if kind == "ggml" else [tmp_path / "new"]
    assert made.status == 0
    for flags in ((), ("--without_timestamps",)):
        found = tilewhisper("transcribe", SAMPLE, "--model", model, "--policy", policy, *flags)
        assert "take your questions" in found.out


def test_the_help_has_every_format_and_precision(tilewhisper):
    text = " ".join(tilewhisper("convert", "--help").out.split())
    for name, form in export.FORMATS.items():
        assert f"{name} {', '.join(form.precisions)}" in text
        assert f"{name} for {form.engines}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "ggml", "--precision", "int8"), "ggml has no precision 'int8': its precisions are f16, q8_0"),
        (("--to", "gguf"), "invalid choice: 'gguf' (choose from"),
        ((), "the following arguments are required: --to"),
    ],
)
def test_a_wrong_request_is_refused_before_weights_are_read(tilewhisper, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(loader, "read", lambda source: pytest.fail("read"))
    finished = tilewhisper("convert", "tiny.en", tmp_path / "new", *arguments)
    assert finished.status == 2
    assert message in finished.err
    assert not (tmp_path / "new").exists()


def test_a_folder_with_files_is_refused_before_weights_are_read(tilewhisper, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "read", lambda source: pytest.fail("read"))
    (tmp_path / "kept").touch()
    finished = tilewhisper("convert", "tiny.en", "--to", "ggml", tmp_path)
    assert finished.status == 2
    assert finished.errors == [
        f"tilewhisper: error: cannot write {tmp_path}: it is not empty (it has kept); give a new or empty folder"
    ]


def test_a_missing_package_is_named(tilewhisper, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    finished = tilewhisper("convert", "tiny.en", "--to", "onnx", tmp_path)
    assert finished.errors == ["tilewhisper: error: onnx needs the package onnx: pip install 'tilewhisper[onnx]'"]
