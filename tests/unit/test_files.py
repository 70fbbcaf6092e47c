"""Files that commands write: a name as long as the system allows, links, pipes, and refusals before the work."""

import os
import threading
from pathlib import Path

import pytest

from tilewhisper.engine.commands.files import check_separate, check_writable, write_all
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output import files

LONGEST = 255  # bytes of a name on every common file system


def test_a_file_whose_name_is_as_long_as_the_system_allows_is_written(tmp_path):
    path = tmp_path / ("あ" * 83 + "xx.txt")
    assert len(os.fsencode(path.name)) == LONGEST
    check_writable(path)
    files.write_whole(path, "text")
    assert path.read_text() == "text"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path):
    path = tmp_path / ("x" * LONGEST + ".txt")
    with pytest.raises(OptionError, match=r"^cannot write .*: its name \(259 bytes\) or path is too long .*; shorten"):
        check_writable(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_files_is_found_by_trying(tmp_path, monkeypatch):
    if Path("/proc/self").is_dir():
        with pytest.raises(OptionError, match=r"^cannot write /proc/self/x\.json: No such file or directory$"):
            check_writable("/proc/self/x.json")  # its permissions allow root to write

    def read_only(self, **_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(OptionError, match=r"x\.json: Read-only file system$"):
        check_writable(tmp_path / "x.json")


def test_the_check_leaves_nothing_behind_and_an_old_file_alone(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    check_writable(tmp_path / "old.txt")
    check_writable(tmp_path / "new.txt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.txt", "old")]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("target.txt")
    files.write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "new"


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    check_writable(pipe)
    files.write_whole(pipe, "text")
    reader.join(timeout=10)
    assert read == ["text"]
    assert pipe.is_fifo()


def test_a_dash_is_no_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"^cannot write -: for standard output give /dev/stdout, for a file"):
        check_writable("-")
    check_writable("./-")


def test_half_of_a_surrogate_pair_does_not_lose_the_file(tmp_path):
    files.write_whole(tmp_path / "policy.toml", "# audio: \udcff.wav\n")
    assert (tmp_path / "policy.toml").read_text("utf-8") == "# audio: ?.wav\n"


def test_one_file_that_fails_does_not_keep_the_others_from_being_written(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OptionError, match=r"^cannot write .*/a: .*; cannot write .*/none/x: No such file"):
        write_all((tmp_path / name, name) for name in ("a", "b", "none/x", "c"))
    assert (tmp_path / "b").read_text() == "b"
    assert (tmp_path / "c").read_text() == "c"


def test_an_output_that_would_overwrite_another_file_of_the_command_is_refused(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "a.wav")
    with pytest.raises(OptionError, match=r"^--json .*link\.json would overwrite an input"):
        check_separate([("--json", tmp_path / "link.json")], [tmp_path / "a.wav"])
    with pytest.raises(OptionError, match=r"^--trace .* would overwrite the file of --json"):
        check_separate([("--json", tmp_path / "x"), ("--trace", tmp_path / "." / "x")], [])
    check_separate([("--json", "/dev/null"), ("--trace", "/dev/null"), ("--report", None)], [tmp_path / "a.wav"])
