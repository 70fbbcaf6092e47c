"""Transcript files: byte for byte those of openai-whisper and its relatives, and written whole or not at all."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tilewhisper.engine.output import files
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS, GrowingFile, GrowingWriter, format_timestamp
from tilewhisper.engine.results import Segment, Word

ENGLISH = SimpleNamespace(language="en")


def segment(**values) -> Segment:
    plain = {
        "id": 0, "seek": 0, "start": 0.0, "end": 2.5, "text": " Hello there.", "tokens": [50363, 18435, 50488],
        "avg_logprob": -0.25, "compression_ratio": 0.6, "no_speech_prob": 0.01, "words": None, "temperature": 0.0,
    }  # fmt: skip
    return Segment(**(plain | values))


def render(name: str, *segments: Segment, **options) -> str:
    return WRITERS[name].render(segments, ENGLISH, SubtitleOptions(**options))


def test_every_format_has_its_name_and_one_grows():
    assert list(WRITERS) == ["txt", "vtt", "srt", "tsv", "json", "jsonl"]
    assert all(writer.name == name for name, writer in WRITERS.items())
    assert [name for name, writer in WRITERS.items() if isinstance(writer, GrowingWriter)] == ["jsonl"]


def test_the_writers_import_no_heavy_library():
    code = "import sys, tilewhisper.engine.output.writers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "transformers", "numpy"} & set(done.stdout.split())


def test_txt_has_a_line_per_segment():
    assert render("txt", segment(), segment(text="  And more. ")) == "Hello there.\nAnd more.\n"
    assert render("txt") == ""


def test_vtt_has_hours_only_above_zero():
    segments = [segment(), segment(start=3599.9994, end=3599.9996, text=" Later.")]
    assert render("vtt", *segments) == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello there.\n\n59:59.999 --> 01:00:00.000\nLater.\n\n"
    )
    assert render("vtt") == "WEBVTT\n\n"


def test_srt_is_numbered_and_always_has_hours():
    segments = [segment(), segment(start=360000.0, end=360001.0, text=" Later.")]
    assert render("srt", *segments) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello there.\n\n2\n100:00:00,000 --> 100:00:01,000\nLater.\n\n"
    )
    assert render("srt") == ""


def test_tsv_has_whole_milliseconds_and_text_without_tabs():
    assert render("tsv", segment(start=0.0006, text=" a\tb\t")) == "start\tend\ttext\n1\t2500\ta b\n"


def test_an_arrow_in_the_text_differs_from_the_arrow_between_times():
    text = segment(text=" a --> b")
    assert "a -> b" in render("srt", text)
    assert "a -> b" in render("vtt", text)
    assert "a --> b" in render("txt", text)


def test_json_has_openai_whispers_keys_in_its_order_on_one_line():
    assert render("json", segment()) == (
        '{"text": " Hello there.", "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": 2.5, '
        '"text": " Hello there.", "tokens": [50363, 18435, 50488], "temperature": 0.0, "avg_logprob": -0.25, '
        '"compression_ratio": 0.6, "no_speech_prob": 0.01}], "language": "en"}'
    )


def test_json_has_the_words_last_if_there_are_words():
    assert render("json", segment(words=[Word(0.1, 0.2, " Größe", 0.5)])).endswith(
        '"no_speech_prob": 0.01, "words": [{"word": " Gr\\u00f6\\u00dfe", "start": 0.1, "end": 0.2, '
        '"probability": 0.5}]}], "language": "en"}'
    )


def test_json_of_silence_has_no_segments():
    assert json.loads(render("json")) == {"text": "", "segments": [], "language": "en"}


def test_json_keeps_every_character():
    text = ' "Zwölf" \\ 日本\n\t♪'
    content = json.loads(render("json", segment(text=text), segment(text=" end")))
    assert content["text"] == text + " end"
    assert content["segments"][0]["text"] == text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("medium-translate", {}),
        ("small-transcribe", {}),
        ("small-transcribe-word-stamps", {}),
        ("small-transcribe-line-max-words", {"max_words_per_line": 5}),
        ("small-transcribe-line-max-words", {"max_words_per_line": 5, "max_line_count": 1}),
    ],
)
def test_golden_files(shared, name, options):
    """The JSON of another engine's transcript gives its other files, byte for byte, and the same JSON."""
    folder = shared / "writers" / name
    golden = json.loads((folder / "gossos.json").read_text("utf-8"))
    segments = [
        segment(**one | {"words": one["words"] and [Word(**word) for word in one["words"]]})
        for one in golden["segments"]
    ]
    info = SimpleNamespace(language=golden["language"])
    for kind in ("srt", "vtt", "tsv", "txt"):
        written = WRITERS[kind].render(segments, info, SubtitleOptions(**options))
        assert written.encode() == (folder / f"gossos.{kind}").read_bytes()
    for one in golden["segments"]:
        if one["words"] is None:
            del one["words"]  # openai-whisper has no such key without words
    assert json.loads(WRITERS["json"].render(segments, info)) == golden


def test_jsonl_has_the_segments_of_json_a_line_each():
    segments = [segment(), segment(id=1, words=[Word(0.0, 0.5, " Hi", 0.9)])]
    lines = render("jsonl", *segments).splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    assert [json.loads(line) for line in lines] == json.loads(render("json", *segments))["segments"]


def test_a_growing_file_has_each_segment_at_once(tmp_path):
    path = tmp_path / "sample.jsonl"
    path.write_text("old")
    segments = [segment(text=" 日本"), segment(id=1), segment(id=2)]
    with GrowingFile(path, WRITERS["jsonl"]) as file:
        for i, one in enumerate(segments, start=1):
            file.write(one)
            assert path.read_text() == render("jsonl", *segments[:i])


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_growing_file_ends_with_a_complete_line_after_an_error(tmp_path, stop):
    path = tmp_path / "sample.jsonl"
    with GrowingFile(path, WRITERS["jsonl"]) as growing:
        growing.write(segment())
        file = growing._file

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                if len(data) < 50:
                    raise stop
                return file.write(data[:40])

        growing._file = Full()
        with pytest.raises(type(stop)):
            growing.write(segment(id=1))
        assert path.read_text() == render("jsonl", segment())
        growing._file = file
        growing.write(segment(id=2))
    assert path.read_text() == render("jsonl", segment(), segment(id=2))


def test_a_file_replaces_an_older_one(tmp_path):
    path = tmp_path / "sample.txt"
    path.write_text("old and longer than the new one")
    files.write_whole(path, "ново 日本\n")
    assert path.read_bytes() == "ново 日本\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "sample.txt"
    path.write_text("old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("seconds", "arguments", "timestamp"),
    [
        (0.0, {}, "00:00.000"),
        (3599.9996, {}, "01:00:00.000"),
        (61.25, {"always_include_hours": True}, "00:01:01.250"),
        (61.25, {"always_include_hours": True, "decimal_marker": ","}, "00:01:01,250"),
    ],
)
def test_timestamps_are_openai_whispers(seconds, arguments, timestamp):
    assert format_timestamp(seconds, **arguments) == timestamp
    theirs = pytest.importorskip("whisper.utils", exc_type=ImportError)
    assert theirs.format_timestamp(seconds, **arguments) == timestamp
