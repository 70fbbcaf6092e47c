"""`scripts/transcripts.py`: what it says of two settings that agree, of one that is spoiled, and of bad input."""

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
    """Two short clips in English, and one that says to be in Chinese."""
    rows = (shared / "librispeech" / "transcripts.tsv").read_text().splitlines()
    said = {file: text for file, _, text in (row.split("\t") for row in rows)}
    for name in CLIPS:
        (tmp_path / name).symlink_to(shared / "librispeech" / name)
    (tmp_path / "zh.wav").touch()
    english = (f"{name}\t\t{said[name]}" for name in CLIPS)
    return folder_of(tmp_path, *english, "zh.wav\tzh\t你好", columns="file\tlanguage\treference")


def test_a_setting_that_drops_a_word_and_ends_late_shows(script, clips, tmp_path, monkeypatch, capsys):
    require_weights("tiny.en")
    transcribe = script.transcribe

    def spoiling(model, setting, clip, options):
        heard = transcribe(model, setting, clip, options)
        if setting.audio_context != "silent":
            return heard
        if clip.file.name == CLIPS[0]:
            return replace(heard, text=heard.text.rsplit(" ", 1)[0], loops=True, again_in_full=1)
        ((start, end),) = heard.spans
        return replace(heard, spans=[(start, end + 0.5)])

    monkeypatch.setattr(script, "transcribe", spoiling)
    file = tmp_path / "rows.json"
    assert script.main([str(clips), *SETTINGS, "--threads", "1", "--json", str(file)]) == 0
    first, good, spoiled = json.loads(file.read_text())["rows"]
    assert (first["clips"], first["measure"], first["error_rate"], first["end_max"]) == (2, "WER", 0.0, 0.0)
    assert (good["error_rate"], good["different"], good["ends_compared"]) == (0.0, [], 2)
    assert good["end_max"] <= 0.2
    assert good["disordered"] == good["again_in_full"] == good["loops"] == 0
    assert 0 < good["encode_seconds"] < first["encode_seconds"]
    assert 0 < good["decode_seconds"] < good["rtf"] * good["audio_seconds"]
    (difference,) = spoiled["different"]
    assert difference["file"] == CLIPS[0]
    assert difference["first"].startswith(difference["text"] + " ")
    assert spoiled["error_rate"] > 0
    assert (spoiled["ends_compared"], spoiled["loops"], spoiled["again_in_full"]) == (1, 1, 1)
    assert spoiled["end_mean"] == pytest.approx(0.5, abs=0.2)

    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in said.splitlines()}
    assert lines["torch/sparse:4"][2:6] == ["2", "WER", "0.00", "2"]
    assert lines["torch/silent"][2:6] == ["2", "WER", f"{spoiled['error_rate']:.2f}", "1"]
    assert f"tiny.en knows English only: 1 of 3 clips of {clips} left out" in said
    assert "torch: encoder on torch, decoder on torch" in said


def test_characters_are_counted_whatever_their_case_form_and_punctuation(script):
    from quality import character_error_rate

    assert character_error_rate(["が。"], ["か\u3099"]) == 0  # one character, or two that make it
    assert character_error_rate(["Las arenas, son."], ["las arenas son"]) == 0
    assert character_error_rate(["abcd", "efgh"], ["abcd", "ef"]) == 25
    assert character_error_rate(["abcd"], [""]) == 100


@pytest.mark.parametrize(
    ("rows", "arguments", "said"),
    [
        ([], [], "transcripts.tsv: expected columns"),
        (["gone.wav\twords"], [], "gone.wav: named in transcripts.tsv, and not there"),
        (["a.wav\t"], [], "a row has no file or no reference"),
        (["a.wav\twords"], ["--setting", "cpu"], "expected POLICY/AUDIO_CONTEXT, such as cpu/sparse:4, not 'cpu'"),
        (["a.wav\twords"], ["--setting", "cpu/sparse:0"], "got 'sparse:0'"),
        (["a.wav\twords"], ["--setting", "gpu/full"], "no policy 'gpu'"),
        (["a.wav\twords"], ["--beam_size", "0"], "beam_size must be at least 1"),
        (["a.wav\twords"], ["--model", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_one_clear_line(script, rows, arguments, said, tmp_path, capsys):
    (tmp_path / "a.wav").touch()
    assert script.main([str(folder_of(tmp_path, *rows)), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("transcripts: error: ")
    assert said in line
