"""Names of output files on each system; the rules of the others are data, so that all of them run here."""

import ntpath
import os
from pathlib import Path

import pytest

from tilewhisper.engine.bulk.formats import TranscriptFiles
from tilewhisper.engine.bulk.work import Item
from tilewhisper.engine.commands import inputs, outputs
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.file_names import RULES, NameRules, below, common_folder
from tilewhisper.engine.output.subtitles import PLAIN

LINUX, MAC, WINDOWS = NameRules(), RULES["darwin"], RULES["win32"]
NOT_ON_WINDOWS = {
    "aux.srt": "aux_.srt",
    "Con.interview.txt": "Con_.interview.txt",
    "nul .srt": "nul _.srt",
    "com1.txt": "com1_.txt",
    "LPT³.txt": "LPT³_.txt",
    "prn": "prn_",
    "a:b?.txt": "a_b_.txt",
    'say "<hi>" | *.txt': "say __hi__ _ _.txt",
    "two\nlines.txt": "two_lines.txt",
    "..\\..\\a.txt": ".._.._a.txt",
    "folder.": "folder_",
    "folder. .": "folder___",
}
ALLOWED = ("auxiliary.txt", "talk.aux.txt", "com.txt", "com12.txt", "Ünïcode 会議.srt", "talk .txt", ".hidden.txt")


@pytest.mark.parametrize(("name", "replaced"), NOT_ON_WINDOWS.items())
def test_windows_gets_another_name_for_one_that_it_does_not_allow(name: str, replaced: str) -> None:
    assert WINDOWS.allowed(name) == replaced
    assert WINDOWS.allowed(replaced) == replaced


@pytest.mark.parametrize("name", ALLOWED)
def test_windows_keeps_a_name_that_it_allows(name: str) -> None:
    assert WINDOWS.allowed(name) == name


@pytest.mark.parametrize("rules", [LINUX, MAC])
@pytest.mark.parametrize("name", [*NOT_ON_WINDOWS, *ALLOWED])
def test_other_systems_keep_every_name(name: str, rules: NameRules) -> None:
    assert rules.allowed(name) == name


@pytest.mark.parametrize(
    ("first", "second", "same_on"),
    [
        ("out/Talk.txt", "out/talk.txt", {WINDOWS, MAC}),
        ("out/caf\u00e9.txt", "out/cafe\u0301.txt", {MAC}),
        ("out/a.txt", "out/b.txt", set()),
    ],
)
def test_names_that_a_system_takes_for_the_same(first: str, second: str, same_on: set[NameRules]) -> None:
    assert {rules for rules in (LINUX, MAC, WINDOWS) if rules.key(Path(first)) == rules.key(Path(second))} == same_on


def naming(rules: NameRules) -> outputs.Naming:
    return outputs.Naming(Path("out"), ["srt"], "/", rules=rules)


def test_transcribe_names_its_files_by_the_rules() -> None:
    assert naming(WINDOWS).paths("a/aux.flac") == [Path("out/aux_.srt")]
    assert naming(WINDOWS).paths("a/what?.flac") == [Path("out/what_.srt")]
    assert naming(LINUX).paths("a/aux.flac") == [Path("out/aux.srt")]


def test_transcribe_refuses_inputs_whose_files_only_this_system_takes_for_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"a/Talk.mp3 and b/talk.mp3 would both be written to out/talk.srt"):
        outputs.plan(["a/Talk.mp3", "b/talk.mp3"], naming(MAC))
    assert len(outputs.plan(["a/Talk.mp3", "b/talk.mp3"], naming(LINUX))) == 2


def batch_paths(rules: NameRules, *names: str) -> list[str]:
    items = [Item(name) for name in names]
    form = TranscriptFiles(Path("out"), items, ["txt"], PLAIN, rules)
    return [str(path) for item in items for path in form.paths(item.id)]


def test_batch_names_its_files_by_the_rules() -> None:
    url = "s3://bucket/con/old. /a:b?.wav"
    assert batch_paths(WINDOWS, url) == ["out/bucket/con_/old__/a_b_.txt"]
    assert batch_paths(LINUX, url) == ["out/bucket/con/old. /a:b?.txt"]
    with pytest.raises(OptionError, match="would both be written to"):
        batch_paths(WINDOWS, "s3://bucket/a?.wav", "s3://bucket/a*.wav")


@pytest.mark.parametrize("url", ["file:///data/a.wav", "s3://data/../a.wav", "s3://../..//data/./a.wav"])
def test_files_of_a_url_stay_inside_the_output_folder(url: str) -> None:
    (path,) = batch_paths(LINUX, url)
    assert path in ("out/data/a.txt", "out/a.txt")


def test_inputs_on_several_drives_of_windows(monkeypatch) -> None:
    monkeypatch.setattr(os, "path", ntpath)
    assert common_folder(["C:\\talks", "D:\\more"]) == ""
    assert below("D:\\more\\a.wav", "") == "D\\more\\a.wav"
    assert below("\\\\server\\share\\a.wav", "") == "server\\share\\a.wav"
    root = common_folder(["C:\\talks\\one", "C:\\talks\\two"])
    assert below("C:\\talks\\two\\a.wav", root) == "two\\a.wav"
    assert inputs.common_folder(["C:\\talks\\a.wav", "D:\\a.wav"]) == ""
