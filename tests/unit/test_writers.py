"""Transcripts as files: byte for byte what openai-whisper and its kin write, and whole or not at all."""

import json
from types import SimpleNamespace

import pytest

from tilewhisper.engine import writers
from tilewhisper.engine.results import Segment


def segment(**values) -> Segment:
    plain = {
        "id": 0, "seek": 0, "start": 0.0, "end": 2.5, "text": " Hello there.", "tokens": [50363, 18435, 50488],
        "avg_logprob": -0.25, "compression_ratio": 0.6, "no_speech_prob": 0.01, "words": None, "temperature": 0.0,
    }  # fmt: skip
    return Segment(**(plain | values))


ENGLISH = SimpleNamespace(language="en")


def test_txt_is_a_line_a_segment():
    assert writers.txt([segment(), segment(text="  And more. ")], ENGLISH) == "Hello there.\nAnd more.\n"
    assert writers.txt([], ENGLISH) == ""


def test_json_is_openais_keys_in_their_order_on_one_line():
    assert writers.to_json([segment()], ENGLISH) == (
        '{"text": " Hello there.", "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": 2.5, '
        '"text": " Hello there.", "tokens": [50363, 18435, 50488], "temperature": 0.0, "avg_logprob": -0.25, '
        '"compression_ratio": 0.6, "no_speech_prob": 0.01}], "language": "en"}'
    )


def test_json_of_silence():
    assert json.loads(writers.to_json([], ENGLISH)) == {"text": "", "segments": [], "language": "en"}


def test_json_keeps_every_character():
    text = ' "Zwölf" \\ 日本\n\t♪'
    content = json.loads(writers.to_json([segment(text=text), segment(text=" end")], ENGLISH))
    assert content["text"] == text + " end"
    assert content["segments"][0]["text"] == text


@pytest.mark.parametrize("name", ["medium-translate", "small-transcribe", "small-transcribe-word-stamps"])
def test_golden_files(shared, name):
    """Another engine's transcripts: its JSON through our writers gives its txt, and the fields we share of its JSON."""
    folder = shared / "writers" / name
    golden = json.loads((folder / "gossos.json").read_text("utf-8"))
    segments = [segment(**{key: one[key] for key in Segment.__dataclass_fields__}) for one in golden["segments"]]
    info = SimpleNamespace(language=golden["language"])
    assert writers.txt(segments, info).encode() == (folder / "gossos.txt").read_bytes()
    ours = json.loads(writers.to_json(segments, info))
    assert ours["language"] == golden["language"]
    for mine, theirs in zip(ours["segments"], golden["segments"], strict=True):
        assert mine == {key: value for key, value in theirs.items() if key != "words"}


def test_every_format_of_the_command_has_a_writer():
    from tilewhisper.engine.cli import FORMATS

    assert set(FORMATS) == set(writers.WRITERS)


def test_a_file_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "sample.txt"
    path.write_text("old and longer than the new one")
    writers.write_whole(path, "ново 日本\n")
    assert path.read_bytes() == "ново 日本\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "sample.txt"
    path.write_text("old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        writers.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
