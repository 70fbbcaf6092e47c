"""`scripts/transcripts.py`: scores of settings that agree and of a setting with errors, and bad input."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_weights

CLIPS = ("3005-163389-0007.flac", "3005-163389-0004.flac")
SETTINGS = ("--setting", "torch/full", "--setting", "torch/sparse:4", "--setting", "torch/silent")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    threads = torch.get_num_threads()
    yield importlib.import_module("transcripts")
    torch.set_num_threads(threads)


def folder_of(tmp_path, *rows, columns="file\treference"):
    (tmp_path / "transcripts.tsv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def clips(shared, tmp_path):
    """Two short English clips, and a clip labelled as Chinese."""
    rows = (shared / "librispeech" / "transcripts.tsv").read_text().splitlines()
    references = {file: text for file, _, text in (row.split("\t") for row in rows)}
    for name in CLIPS:
        (tmp_path / name).symlink_to(shared / "librispeech" / name)
    (tmp_path / "zh.wav").touch()
    english = (f"{name}\t\t{references[name]}" for name in CLIPS)
    return folder_of(tmp_path, *english, "zh.wav\tzh\t你好", columns="file\tlanguage\treference")


def test_a_missing_word_and_a_late_end_are_counted(script, clips, tmp_path, monkeypatch, capsys):
    require_weights("tiny.en")
    transcribe = script.transcribe

    def with_errors(model, setting, clip, options):
        outcome = transcribe(model, setting, clip, options)
        if setting.audio_context != "silent":
            return outcome
        if clip.file.name == CLIPS[0]:
            return replace(outcome, text=outcome.text.rsplit(" ", 1)[0], loops=True, again_in_full=1)
        ((start, end),) = outcome.spans
        return replace(outcome, spans=[(start, end + 0.5)])

    monkeypatch.setattr(script, "transcribe", with_errors)
    file = tmp_path / "rows.json"
    assert script.main([str(clips), *SETTINGS, "--threads", "1", "--json", str(file)]) == 0
    first, good, wrong = json.loads(file.read_text())["rows"]
    assert (first["clips"], first["measure"], first["error_rate"], first["end_max"]) == (2, "WER", 0.0, 0.0)
    assert (good["error_rate"], good["different"], good["ends_compared"]) == (0.0, [], 2)
    assert good["end_max"] <= 0.2
    assert good["disordered"] == good["again_in_full"] == good["loops"] == 0
    assert 0 < good["encode_seconds"] < first["encode_seconds"]
    assert 0 < good["decode_seconds"] < good["rtf"] * good["audio_seconds"]
    (difference,) = wrong["different"]
    assert difference["file"] == CLIPS[0]
    assert difference["first"].startswith(difference["text"] + " ")
    assert wrong["error_rate"] > 0
    assert (wrong["ends_compared"], wrong["loops"], wrong["again_in_full"]) == (1, 1, 1)
    assert wrong["end_mean"] == pytest.approx(0.5, abs=0.2)

    output = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in output.splitlines()}
    assert lines["torch/sparse:4"][2:6] == ["2", "WER", "0.00", "2"]
    assert lines["torch/silent"][2:6] == ["2", "WER", f"{wrong['error_rate']:.2f}", "1"]
    assert f"tiny.en is English-only: 1 of 3 clips of {clips} left out" in output
    assert "torch: encoder on torch, decoder on torch" in output


def test_character_errors_ignore_case_normalization_form_and_punctuation(script):
    from quality import character_error_rate

    assert character_error_rate(["が。"], ["か\u3099"]) == 0  # composed and decomposed
    assert character_error_rate(["Las arenas, son."], ["las arenas son"]) == 0
    assert character_error_rate(["abcd", "efgh"], ["abcd", "ef"]) == 25
    assert character_error_rate(["abcd"], [""]) == 100


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], [], "transcripts.tsv: expected the tab-separated columns"),
        (["gone.wav\twords"], [], "gone.wav: listed in transcripts.tsv, but missing"),
        (["a.wav\t"], [], "every row needs a file and a reference"),
        (
            ["a.wav\twords"],
            ["--setting", "cpu"],
            "must be POLICY/AUDIO_CONTEXT, such as cpu/sparse:4, got 'cpu'",
        ),
        (["a.wav\twords"], ["--setting", "cpu/sparse:0"], "'sparse:0'"),
        (["a.wav\twords"], ["--setting", "gpu/full"], "no policy 'gpu'"),
        (["a.wav\twords"], ["--beam_size", "0"], "beam_size must be "),
        (["a.wav\twords"], ["--model", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_reported_in_one_line(script, rows, arguments, message, tmp_path, capsys):
    (tmp_path / "a.wav").touch()
    assert script.main([str(folder_of(tmp_path, *rows)), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("transcripts: error: ")
    assert message in line
