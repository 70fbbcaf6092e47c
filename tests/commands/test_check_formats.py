"""`scripts/check_formats.py`: cases pass, have a stated reason or fail, and the exit status says so."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.models.audio import reader


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("check_formats")


@pytest.fixture
def ffmpeg(script):
    if not shutil.which("ffmpeg"):
        pytest.skip("the program ffmpeg is not installed")
    require_weights("tiny.en")
    return importlib.import_module("format_check.ffmpeg")


def test_a_missing_ffmpeg_is_an_error(script, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert script.main([str(SAMPLE)]) == 2
    assert "ffmpeg is missing" in capsys.readouterr().err


def test_the_variants_of_a_format_are_checked(script, ffmpeg, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ffmpeg, "encodings", lambda: iter([("ogg", "libvorbis"), ("adts", "")]))
    assert script.main([str(SAMPLE), "--json", str(tmp_path / "cases.json")]) == 0
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert [case["variant"] for case in cases] == 2 * [*script.variants.VARIANTS]
    joined = next(case for case in cases if case["variant"] == "joined")
    assert joined["problem"] is None and joined["seconds"] == pytest.approx(2 * 7.28, abs=0.1)
    assert "10 cases, 0 without" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "problem"),
    [(lambda samples: samples[: len(samples) // 2], "expected 7.2"), (lambda samples: 0 * samples, "words differ")],
)
def test_other_samples_than_ffmpegs_fail(script, ffmpeg, monkeypatch, change, problem, capsys):
    def changed(source, log=None, **options):
        samples = np.concatenate(list(original(source, **options)))
        if log and isinstance(source, Path):  # the model, too, reads its samples as a stream
            samples = change(samples)
            log.seconds = len(samples) / 16_000
        yield samples

    original = reader.stream
    monkeypatch.setattr(reader, "stream", changed)
    monkeypatch.setattr(ffmpeg, "encodings", lambda: iter([("wav", "pcm_s16le")]))
    monkeypatch.setattr(script.variants, "VARIANTS", {"whole": lambda data, other: data})
    assert script.main([str(SAMPLE)]) == 1
    assert problem in capsys.readouterr().out


def test_reasons_are_found_by_pattern(script, monkeypatch):
    reasons = importlib.import_module("format_check.reasons")
    monkeypatch.setattr(reasons, "REASONS", (reasons.Reason("m*", "*", "cut", "no index"),))
    assert reasons.reason_for("mov", "aac", "cut", readable=True) == "no index"
    assert reasons.reason_for("mov", "aac", "whole", readable=True) is None
    assert reasons.reason_for("mov", "aac", "whole", readable=False) == reasons.UNREADABLE
