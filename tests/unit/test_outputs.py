"""Names of transcript files, and writing several of which some fail."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from stand_in import segment

from tilewhisper.engine.commands import outputs
from tilewhisper.engine.commands.inputs import common_folder
from tilewhisper.engine.commands.outputs import Naming, OutputFiles, parse_formats
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import PLAIN
from tilewhisper.engine.output.writers import WRITERS, GrowingFile


@pytest.mark.parametrize(
    ("text", "formats"),
    [("srt", ["srt"]), ("srt,vtt", ["srt", "vtt"]), ("srt, vtt", ["srt", "vtt"]), ("srt,all", list(WRITERS))],
)
def test_formats_are_separated_by_commas(text, formats):
    assert parse_formats(text) == formats


@pytest.mark.parametrize(("text", "hint"), [("sbv", "choose from txt"), ("srt,jsn", "did you mean json?"), ("", "")])
def test_an_unknown_format_is_refused(text, hint):
    with pytest.raises(ValueError, match=f"unknown format '{text.split(',')[-1]}'") as refused:
        parse_formats(text)
    assert hint in str(refused.value)


def test_a_format_given_twice_is_written_once():
    assert Naming(Path("out"), ["srt", "srt"], "/").paths("a.wav") == [Path("out/a.srt")]


@pytest.mark.parametrize(
    ("arguments", "flags", "expected"),
    [
        (["a/x.mp3"], {}, ["out/x.srt"]),
        (["a/x.mp3"], {"keep_folders": True}, ["out/x.srt"]),
        (["a/x.mp3", "b/c/x.mp3"], {"keep_folders": True}, ["out/a/x.srt", "out/b/c/x.srt"]),
        (["a/x.mp3", "../x.mp3"], {"keep_folders": True}, ["out/HERE/a/x.srt", "out/x.srt"]),
        (["a/x.mp3", "a/x.wav"], {"keep_extension": True}, ["out/x.mp3.srt", "out/x.wav.srt"]),
        (["-"], {"keep_folders": True, "keep_extension": True}, ["out/stdin.srt"]),
    ],
)
def test_flags_keep_more_of_the_inputs_path(arguments, flags, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    naming = Naming(Path("out"), ["srt"], common_folder(arguments), **flags)
    expected = [Path(path.replace("HERE", tmp_path.name)) for path in expected]
    assert [path for file in arguments for path in naming.paths(file)] == expected


@pytest.mark.parametrize(
    ("files", "flags", "proposed"),
    [
        (["a/x.mp3", "b/x.mp3"], "--keep_folders True", "out/a/x.srt and out/b/x.srt"),
        (["a/x.mp3", "a/x.wav"], "--keep_extension True", "out/x.mp3.srt and out/x.wav.srt"),
        (
            ["a/x.mp3", "a/x.wav", "b/x.wav"],
            "--keep_folders True --keep_extension True",
            "out/a/x.mp3.srt and out/a/x.wav.srt",
        ),
    ],
)
def test_inputs_that_share_an_output_are_refused_with_the_flag_that_separates_them(
    files, flags, proposed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as refused:
        outputs.plan(files, Naming(Path("out"), ["srt"], common_folder(files)))
    message = str(refused.value)
    assert message == f"{files[0]} and {files[1]} would both be written to out/x.srt; add {flags} to write {proposed}"
    assert not (tmp_path / "out").exists()
    kept = {flag.split()[0]: True for flag in flags.split("--")[1:]}
    planned = outputs.plan(files, Naming(Path("out"), ["srt"], common_folder(files), **kept))
    assert len({path for paths in planned.values() for path in paths}) == len(files)


@pytest.mark.parametrize("failing", ["srt", "jsonl"])
def test_one_file_that_cannot_be_written_does_not_lose_the_others(failing, tmp_path):
    paths = [tmp_path / f"x.{name}" for name in WRITERS]
    (tmp_path / f"x.{failing}").mkdir()
    written = OutputFiles(paths, PLAIN)
    found = list(written.growing(iter([segment(), segment(id=1)])))
    with pytest.raises(OptionError, match=rf"^cannot write .*/x\.{failing}: Is a directory$"):
        written.finish(found, SimpleNamespace(language="en"))
    assert len(found) == 2
    assert [path.name for path in paths if path.is_file()] == [f"x.{name}" for name in WRITERS if name != failing]


def test_a_growing_file_that_fails_midway_is_reported_once_and_the_segments_go_on(tmp_path, monkeypatch):
    def full(self, segment):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GrowingFile, "write", full)
    written = OutputFiles([tmp_path / "x.jsonl", tmp_path / "x.txt"], PLAIN)
    found = list(written.growing(iter([segment(), segment(id=1, text=" And more.")])))
    with pytest.raises(OptionError, match=r"^cannot write .*/x\.jsonl: No space left on device$"):
        written.finish(found, SimpleNamespace(language="en"))
    assert (tmp_path / "x.txt").read_text() == "Hello there.\nAnd more.\n"
