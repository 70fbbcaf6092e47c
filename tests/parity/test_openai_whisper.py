"""Against openai-whisper itself, by `scripts/parity.py`, which runs all clips and long files."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_weights


@pytest.fixture
def parity(monkeypatch):
    pytest.importorskip("jiwer")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    threads = torch.get_num_threads()
    yield importlib.import_module("parity")
    torch.set_num_threads(threads)


def test_tokens_and_words_of_some_clips(parity, shared, tmp_path):
    pytest.importorskip("whisper", reason="openai-whisper is not installed")
    require_weights("tiny.en")
    what = [str(shared / "librispeech"), "--clips", "3", "--work", str(tmp_path), "--setting", "cpu/full"]
    decodings = ["--decoding", "greedy-words", "--decoding", "beam5"]
    assert parity.main([*what, *decodings, "--threads", "2", "--json", str(tmp_path / "rows.json")]) == 0
    words, beam = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (words["recordings"], words["different"], beam["different"]) == (3, [], [])
    assert words["near"] >= 95
    assert beam["near"] is None


def test_what_differs_is_counted(parity):
    recordings = [parity.Recording(name, None, "red green") for name in ("a", "b")]
    theirs = parity.Transcription("Red green.", [1, 2], [(0.0, 1.0)], [("Red", 0.0, 0.5), (" green.", 0.5, 1.0)])
    late = replace(theirs, words=[("Red", 0.0, 0.56), (" green.", 0.57, 1.0)])
    other = replace(theirs, text="Red.", tokens=[1], spans=[(0.5, 0.5)], words=[("Red.", 0.5, 0.5)])
    row = parity.score("m", "s", "d", "w", recordings, [(late, theirs), (other, theirs)])
    assert (row.same_tokens, row.different) == (1, ["b"])
    assert row.near == 75  # of the first alone: the words of the second are others
    assert (row.difference, row.word_error_rate, row.their_word_error_rate) == (25, 25, 0)
    assert (row.disordered, row.their_disordered) == (1, 0)


def test_openai_whispers_results_are_cached(parity, tmp_path, monkeypatch):
    import numpy as np
    from openai_whisper import OpenAIWhisper, Transcription

    class Workshop:
        def weights(self, model, form):
            return tmp_path / form / "whisper.pt"

    monkeypatch.setattr("openai_whisper.installed_version", lambda: "1")
    calls, result = [], Transcription("a", [1], [(0.0, 1.0)], [("a", 0.0, 1.0)])
    monkeypatch.setattr(OpenAIWhisper, "_transcribe", lambda self, *how: calls.append(how) or result)
    sounds = [np.full(4, value, np.float32) for value in (0, 0, 1)]
    results = [OpenAIWhisper("m", Workshop()).transcribe(one, 5, True, False) for one in sounds]
    OpenAIWhisper("m", Workshop()).transcribe(sounds[0], 1, True, False)
    assert results == [result] * 3
    assert len(calls) == 3  # not again for the same samples


def test_it_says_that_openai_whisper_is_not_installed(parity, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("openai_whisper.PACKAGE", "openai-whisper-of-nobody")
    assert parity.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("parity: error: openai-whisper-of-nobody is not installed: pip install")
