"""`scripts/memory.py`: the peak of a separate process, and the exit status for a long recording's extra memory."""

import importlib
import json
from pathlib import Path

import pytest
from conftest import require_weights


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("memory")


def test_the_error_of_a_process_is_reported(script, shared, capsys):
    assert script.main([str(shared / "librispeech"), "--model", "no-such-model", "--seconds", "5"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_the_peak_is_of_the_command(script, shared, tmp_path, monkeypatch):
    require_weights("tiny.en")
    monkeypatch.setattr(script, "WAYS", {"plain": ("--beam_size", "1")})
    file = tmp_path / "peaks.json"
    assert script.main([str(shared / "librispeech"), "--seconds", "20", "--json", str(file)]) == 0
    (peak,) = json.loads(file.read_text())
    assert 10 < peak["audio_seconds"] <= 20
    assert 100 * script.MB < peak["peak_bytes"] < 1000 * script.MB


@pytest.mark.parametrize(("more", "status"), [(100, 0), (101, 1)])
def test_exceeding_the_target_sets_the_exit_status(script, shared, monkeypatch, capsys, more, status):
    def measure(model, way, file, args):
        seconds = float(file.stem.removesuffix("s"))
        return script.Peak(model, way, seconds, script.MB * (300 + more * (seconds > 10)), rtf=0.1, batch_size=1)

    monkeypatch.setattr(script, "measure", measure)
    assert script.main([str(shared / "librispeech"), "--seconds", "10", "--seconds", "1000"]) == status
    assert f"300 {300 + more} +{more}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("more", "status"), [(100, 0), (101, 1)])
def test_batches_are_compared_with_one_window_after_the_other(script, shared, monkeypatch, capsys, more, status):
    def measure(model, way, file, args):
        return script.Peak(model, way, 10.0, script.MB * (300 + more * bool(script.WAYS[way])), rtf=0.1, batch_size=1)

    monkeypatch.setattr(script, "measure", measure)
    assert script.main([str(shared / "librispeech"), "--seconds", "10"]) == status
    assert f"{300 + more} +0 +{more}" in " ".join(capsys.readouterr().out.split())
