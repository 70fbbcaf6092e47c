"""Exported models in their own engines: the same tokens as here, and CTranslate2's files as its own converter's."""

import importlib
from pathlib import Path

import pytest
import torch
from conftest import SAMPLE, require_weights

from tilewhisper.models.audio import reader
from tilewhisper.models.checkpoint import export

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def check(monkeypatch):
    """The module of `scripts/check_weights.py`, which compares all precisions and more recordings."""
    pytest.importorskip("jiwer")
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("check_weights")


@pytest.mark.parametrize("kind", export.FORMATS)
def test_the_formats_own_engine_gives_the_same_tokens(check, engine, tmp_path, kind):
    pytest.importorskip(check.PACKAGES[kind], reason=f"{check.PACKAGES[kind]} is not installed")
    for package in export.FORMATS[kind].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    ours = engine(require_weights("tiny.en"))
    samples = check.padded(reader.decode_audio(SAMPLE))
    weights = check.write(ours.checkpoint, kind, tmp_path / "float16", export.FORMATS[kind].precisions[0])
    tokens = check.ENGINES[kind](weights, ours.checkpoint)(samples)
    assert [token for token in tokens if token < ours.checkpoint.tokenizer.eot] == check.tokens(ours, samples)


def test_onnx_encoder_states_are_those_of_transformers(check, engine, oracle, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx_whisper = importlib.import_module("weight_check.onnx_whisper")
    checkpoint = engine(require_weights("tiny.en")).checkpoint
    export.write(checkpoint, "onnx", tmp_path / "onnx", "float32")
    mel = onnx_whisper.first_window(reader.decode_audio(SAMPLE), checkpoint)
    states = torch.from_numpy(onnx_whisper.OnnxWhisper(tmp_path / "onnx", checkpoint).encode(mel))
    expected = oracle("tiny.en").states(mel)
    assert (states - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("precision", ["float16", "int8_bfloat16", "int16"])
def test_ctranslate2s_own_converter_writes_the_same(engine, tmp_path, precision):
    converters = pytest.importorskip("ctranslate2.converters", reason="ctranslate2 is not installed")
    checkpoint = engine(require_weights("tiny.en")).checkpoint
    export.write(checkpoint, "transformers", tmp_path / "hf", "float32")
    export.write(checkpoint, "ctranslate2", tmp_path / "ours", precision)
    converters.TransformersConverter(str(tmp_path / "hf")).convert(str(tmp_path / "theirs"), quantization=precision)
    ours, theirs = ((tmp_path / name / "model.bin").read_bytes() for name in ("ours", "theirs"))
    for name in (b"decoder/alibi_use_positive_positions", b"decoder/scale_alibi"):  # zeros, of its newest version
        entry = bytes([len(name) + 1, 0]) + name + b"\0\0\1\1\0\0\0\0"
        assert theirs.count(entry) <= 1
        theirs = theirs.replace(entry, b"")
    count = slice(4 + 14 + 4, 4 + 14 + 8)
    assert ours[: count.start] == theirs[: count.start]
    assert ours[count.stop :] == theirs[count.stop :]
