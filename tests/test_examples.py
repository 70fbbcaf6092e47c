"""The examples run on the sample, as they stand."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

EXAMPLES = Path(__file__).parents[1] / "examples"
LONGEST = 60

pytestmark = pytest.mark.slow


@pytest.fixture
def example(monkeypatch, capsys):
    """Run an example with arguments; its exit status, standard output and standard error."""
    require_weights("tiny.en")

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_subtitles_are_written_beside_each_file_and_a_broken_file_is_reported(example, tmp_path):
    shutil.copy(SAMPLE, tmp_path / "first.flac")
    (tmp_path / "broken.mp3").write_bytes(b"no audio")
    (tmp_path / "notes.txt").write_text("no media file")
    status, out, err = example("subtitles_for_a_folder.py", tmp_path, "--model", "tiny.en", "--language", "en")
    assert status == 3
    assert "broken.mp3" in err
    assert "first.srt: 1 segments" in out
    subtitles = (tmp_path / "first.srt").read_text("utf-8")
    assert subtitles.startswith("1\n00:00:0")
    assert all(len(line) <= 42 for line in subtitles.splitlines())
    assert {path.name for path in tmp_path.glob("*.srt")} == {"first.srt"}


def test_a_folder_without_media_is_refused(example, tmp_path):
    status, _, err = example("subtitles_for_a_folder.py", tmp_path)
    assert status == 2
    assert "no audio or video files" in err


def test_a_swapped_layer_is_used_and_changes_the_states_a_little(example):
    status, out, _ = example("swap_a_layer.py", SAMPLE, "--sites", "layers.3.self_attn.*_proj")
    assert status == 0
    assert out.count(SAMPLE_WORDS) == 2
    assert "layers.3.self_attn.q_proj: {'bf16': 1}" in out
    difference = float(out.rpartition(" ")[2])
    assert 0 < difference < 0.01


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) < LONGEST
