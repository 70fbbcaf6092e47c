"""Which recordings the arguments of `transcribe` stand for."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilewhisper.engine.commands.inputs import check, check_repeatable, common_folder, files_of
from tilewhisper.models.errors import AudioError


@pytest.fixture
def tree(tmp_path):
    for name in ("b.mp3", "a.WAV", "notes.txt", ".hidden.wav", "deep/c.ogg", "deep/er/d.mp4", ".cache/e.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found, folder):
    files, errors = found
    return [os.path.relpath(file, folder) for file in files], [str(error) for error in errors]


def test_a_folder_stands_for_its_visible_recordings(tree):
    assert names(files_of(str(tree), recursive=False), tree) == (["a.WAV", "b.mp3"], [])


def test_recursive_includes_nested_folders(tree):
    expected = ["a.WAV", "b.mp3", "deep/c.ogg", "deep/er/d.mp4"]
    assert names(files_of(str(tree), recursive=True), tree) == (expected, [])


def test_each_folder_is_visited_once_even_where_links_lead_in_circles(tree):
    (tree / "deep" / "up").symlink_to(tree)
    (tree / "deep" / "itself").symlink_to(tree / "deep")
    outside = tree.with_name(f"{tree.name}-outside")
    outside.mkdir()
    (outside / "f.flac").touch()
    (tree / "linked").symlink_to(outside)
    files, _ = names(files_of(str(tree), recursive=True), tree)
    assert files == ["a.WAV", "b.mp3", "deep/c.ogg", "deep/er/d.mp4", "linked/f.flac"]


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(tree, monkeypatch):
    scan = os.scandir

    def refuse(folder):
        if os.fspath(folder).endswith("/er"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    files, errors = names(files_of(str(tree), recursive=True), tree)
    assert files == ["a.WAV", "b.mp3", "deep/c.ogg"]
    assert errors == [f"{tree / 'deep' / 'er'}: the folder cannot be read: Permission denied"]


def test_a_folder_with_recordings_only_in_nested_folders_is_refused_with_the_flag(tree):
    (tree / "only" / "deeper").mkdir(parents=True)
    with pytest.raises(AudioError, match=r"without audio or video files.*; add --recursive True"):
        files_of(str(tree / "only"), recursive=False)
    with pytest.raises(AudioError, match=r"has some$"):
        files_of(str(tree / "only"), recursive=True)


@pytest.mark.parametrize("argument", ["-", "nowhere.wav", "x" * 5000, "nul\0.wav"])
def test_any_other_argument_stands_for_itself(argument):
    assert files_of(argument, recursive=False) == ([argument], [])


def test_the_common_folder_is_that_of_all_arguments(tree):
    deep, er = tree / "deep", tree / "deep" / "er"
    assert common_folder([str(deep)]) == str(deep)
    assert common_folder([str(deep / "c.ogg")]) == str(deep)
    assert common_folder([str(deep), str(er / "d.mp4"), "-"]) == str(deep)
    assert common_folder([str(er), str(tree / "a.WAV")]) == str(tree)
    assert common_folder(["-"]) == str(Path.cwd())


def test_a_terminal_is_no_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(AudioError, match=r"^standard input: is the terminal; pipe audio into it, for example: tilew"):
        check("-")


def test_measurements_refuse_what_can_be_read_only_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for once in ("-", str(tmp_path / "pipe.wav")):
        with pytest.raises(AudioError, match="can be read only once"):
            check_repeatable(once)
