"""The screen output and the files of `tilewhisper transcribe`, for one file and for several."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import pytest
from conftest import SAMPLE
from stand_in import segment

from tilewhisper.engine.commands.main import main
from tilewhisper.engine.output import writers
from tilewhisper.engine.results import Word
from tilewhisper.kernels.base import KernelError
from tilewhisper.models.errors import AudioError


def test_verbose_true_shows_times_as_openai_whisper_does(tilewhisper, model):
    model.transcript[1] = segment(id=1, start=3600.0, end=3601.25, text=" And more.")
    finished = tilewhisper("transcribe", SAMPLE, "--verbose", "True")
    assert finished.out == "[00:00.000 --> 00:05.000]  Hello there.\n[01:00:00.000 --> 01:00:01.250]  And more.\n"
    assert "RTF" in finished.err


def test_verbose_false_writes_files_and_shows_nothing(tilewhisper, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = tilewhisper("transcribe", SAMPLE, "--verbose", "False")
    assert (finished.status, finished.out, finished.err) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {f"sample.{kind}" for kind in writers.WRITERS}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("medium-translate", ""),
        ("small-transcribe", ""),
        ("small-transcribe-word-stamps", "--word_timestamps True"),
        ("small-transcribe-line-max-words", "--word_timestamps True --max_words_per_line 5 --max_line_count 1"),
    ],
)
def test_files_equal_those_of_another_engine(tilewhisper, model, shared, tmp_path, monkeypatch, name, flags):
    """From another engine's transcript, the command writes byte for byte that engine's files."""
    golden = shared / "writers" / name
    content = json.loads((golden / "gossos.json").read_text("utf-8"))
    for entry in content["segments"]:
        if entry["words"] is None:
            del entry["words"]  # openai-whisper writes the key only with word timestamps
    monkeypatch.setattr(model, "language", content["language"])
    model.transcript[:] = [
        segment(**entry | ({"words": [Word(**word) for word in entry["words"]]} if "words" in entry else {}))
        for entry in content["segments"]
    ]
    shutil.copy(SAMPLE, tmp_path / "gossos.flac")
    finished = tilewhisper("transcribe", tmp_path / "gossos.flac", "-o", tmp_path / "out", *flags.split())
    assert finished.status == 0
    for kind in ("srt", "vtt", "tsv", "txt"):
        assert (tmp_path / "out" / f"gossos.{kind}").read_bytes() == (golden / f"gossos.{kind}").read_bytes()
    assert json.loads((tmp_path / "out" / "gossos.json").read_text()) == content
    assert ("max_line_count has no effect" in finished.err) == ("max_line_count" in flags)


def test_highlight_words_underlines_each_word_in_turn(tilewhisper, model, tmp_path):
    model.transcript[:] = [segment(words=[Word(0.0, 1.0, " Hello", 0.9), Word(1.0, 2.0, " there.", 0.9)])]
    flags = ["--word_timestamps", "True", "--highlight-words", "True", "-f", "srt", "-o", tmp_path]
    assert tilewhisper("transcribe", SAMPLE, *flags).status == 0
    assert "<u>Hello</u> there." in (tmp_path / "sample.srt").read_text()
    assert "Hello <u>there.</u>" in (tmp_path / "sample.srt").read_text()


def test_a_folder_stands_for_its_recordings_in_order(tilewhisper, model, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.flac", "a.WAV", "c.mp4", ".hidden.wav", "deep/d.wav"):
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    assert tilewhisper("transcribe", tmp_path, tmp_path / "b.flac").status == 0
    assert [call.file for call in model.requests] == [str(tmp_path / name) for name in ("a.WAV", "b.flac", "c.mp4")]


def test_failed_files_are_listed_at_the_end(tilewhisper, model, tmp_path):
    (tmp_path / "empty").mkdir()
    finished = tilewhisper("transcribe", tmp_path / "empty", tmp_path / "none.wav", SAMPLE)
    assert finished.status == 3
    assert [call.file for call in model.requests] == [str(SAMPLE)]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {tmp_path / 'empty'}, {tmp_path / 'none.wav'}"


def three_files(folder):
    for name in ("first.flac", "second.flac", "third.flac"):
        shutil.copy(SAMPLE, folder / name)
    return folder / "first.flac", folder / "second.flac", folder / "third.flac"


@pytest.mark.parametrize(
    ("flags", "size"),
    [("", None), ("--batch_size 5", 5), ("--batched False --batch_size 5", 5), ("--batched False", None)],
)
def test_several_files_are_decoded_together(tilewhisper, model, tmp_path, flags, size):
    files = [str(file) for file in three_files(tmp_path)]
    finished = tilewhisper("transcribe", *files, "--seed", 7, "-o", tmp_path / "out", *flags.split())
    assert finished.status == 0
    assert "warning" not in finished.err
    (call,) = model.together
    assert (call.files, call.batch_size, call.options) == (files, size, {"seed": 7})
    assert finished.out == "Hello there.\nAnd more.\n" * 3
    assert finished.err.count("RTF") == 3
    assert [line.split()[0] for line in finished.err.splitlines() if "───" in line] == files
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.{kind}" for name in ("first", "second", "third") for kind in writers.WRITERS
    }
    assert (tmp_path / "out" / "third.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("flags", "options"), [("--batch_size 1", {}), ("--batched True --batch_size 5", {"batch_size": 5})]
)
def test_flags_that_decode_files_one_after_the_other(tilewhisper, model, tmp_path, flags, options):
    assert tilewhisper("transcribe", *three_files(tmp_path), *flags.split()).status == 0
    assert model.together == []
    assert [call.options for call in model.requests] == [options] * 3


@pytest.mark.parametrize("one_by_one", [True, False])
def test_an_interrupt_leaves_finished_files_complete(tilewhisper, model, tmp_path, monkeypatch, one_by_one):
    monkeypatch.setattr(model, "stop", KeyboardInterrupt())
    how = ("--batch_size", "1") if one_by_one else ()
    finished = tilewhisper("transcribe", *three_files(tmp_path), "-o", tmp_path / "out", *how)
    assert finished.status == 130
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    begun = {"second.jsonl"} if one_by_one else set()
    assert set(written) == {f"first.{kind}" for kind in writers.WRITERS} | begun
    assert written["first.txt"] == "Hello there.\nAnd more.\n"
    if one_by_one:
        assert written["second.jsonl"] == written["first.jsonl"].splitlines(keepends=True)[0]


@pytest.mark.parametrize("how", [(), ("--batch_size", "1")])
def test_a_file_that_fails_midway_is_not_written_and_the_next_file_is(tilewhisper, model, tmp_path, monkeypatch, how):
    monkeypatch.setattr(model, "stop", AudioError("second.flac: is cut off"))
    first, second, third = three_files(tmp_path)
    finished = tilewhisper(
        "transcribe", first, second, third, "-o", tmp_path / "out", "-f", "srt", "--report", tmp_path / "r.json", *how
    )
    assert finished.status == 3
    assert finished.errors == ["tilewhisper: error: second.flac: is cut off"]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {second}"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"first.srt", "third.srt"}
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["failures"] == [{"file": str(second), "error": "second.flac: is cut off"}]
    assert len(report["runs"]) == 2


def test_an_error_of_the_whole_batch_fails_the_remaining_files(tilewhisper, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "stop", KernelError("the device is lost"))
    first, second, third = three_files(tmp_path)
    finished = tilewhisper("transcribe", first, second, third, "-o", tmp_path / "out", "-f", "srt")
    assert finished.status == 3
    assert finished.errors == ["tilewhisper: error: the device is lost"]
    assert finished.err.splitlines()[-1] == f"tilewhisper: failed: {second}, {third}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first.srt"]


def test_a_full_disk_is_one_line_of_error(tilewhisper, model, tmp_path, monkeypatch):
    def full(self, segment):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.GrowingFile, "write", full)
    finished = tilewhisper("transcribe", SAMPLE, "-o", tmp_path, "-f", "jsonl")
    assert finished.status == 2
    assert finished.errors == [f"tilewhisper: error: cannot write {tmp_path / 'sample.jsonl'}: No space left on device"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("how", [(), ("--batch_size", "1")])
def test_on_a_terminal_the_progress_bar_shares_no_line_with_other_output(model, tmp_path, monkeypatch, how):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        assert main(["transcribe", *map(str, three_files(tmp_path)), *how]) == 0
    rows = [row.rpartition("\x1b[2K")[2].rpartition("\r")[2] for row in terminal.getvalue().split("\n")]
    assert rows.count("Hello there.") == 3
    assert sum("RTF" in row for row in rows) == 3
    assert not [row for row in rows if "transcribing" in row and ("there" in row or "RTF" in row)]
    assert ("100%" in terminal.getvalue()) == (not how)


def test_piped_output_has_no_progress_bar(tilewhisper, model, tmp_path):
    finished = tilewhisper("transcribe", *three_files(tmp_path))
    assert "transcribing" not in finished.out + finished.err
