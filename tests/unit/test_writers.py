"""Transcripts as files: byte for byte what openai-whisper and its kin write, and whole or not at all."""

import json
from types import SimpleNamespace

import pytest

from tilewhisper.engine.output import writers
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.results import Segment, Word


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


def test_vtt_has_hours_where_there_are_any():
    segments = [segment(), segment(start=3599.9994, end=3599.9996, text=" Later.")]
    assert writers.vtt(segments, ENGLISH) == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello there.\n\n59:59.999 --> 01:00:00.000\nLater.\n\n"
    )
    assert writers.vtt([], ENGLISH) == "WEBVTT\n\n"


def test_srt_is_numbered_and_always_has_hours():
    segments = [segment(), segment(start=360000.0, end=360001.0, text=" Later.")]
    assert writers.srt(segments, ENGLISH) == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello there.\n\n2\n100:00:00,000 --> 100:00:01,000\nLater.\n\n"
    )
    assert writers.srt([], ENGLISH) == ""


def test_tsv_is_whole_milliseconds_and_text_without_tabs():
    assert writers.tsv([segment(start=0.0006, text=" a\tb\t")], ENGLISH) == "start\tend\ttext\n1\t2500\ta b\n"


def test_an_arrow_in_the_text_is_no_arrow_between_times():
    text = segment(text=" a --> b")
    assert "a -> b" in writers.srt([text], ENGLISH)
    assert "a -> b" in writers.vtt([text], ENGLISH)
    assert "a --> b" in writers.txt([text], ENGLISH)


def test_json_is_openais_keys_in_their_order_on_one_line():
    assert writers.to_json([segment()], ENGLISH) == (
        '{"text": " Hello there.", "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": 2.5, '
        '"text": " Hello there.", "tokens": [50363, 18435, 50488], "temperature": 0.0, "avg_logprob": -0.25, '
        '"compression_ratio": 0.6, "no_speech_prob": 0.01}], "language": "en"}'
    )


def test_json_has_words_last_where_there_are_words():
    spoken = segment(words=[Word(0.1, 0.2, " Größe", 0.5)])
    assert writers.to_json([spoken], ENGLISH).endswith(
        '"no_speech_prob": 0.01, "words": [{"word": " Gr\\u00f6\\u00dfe", "start": 0.1, "end": 0.2, '
        '"probability": 0.5}]}], "language": "en"}'
    )


def test_json_of_silence():
    assert json.loads(writers.to_json([], ENGLISH)) == {"text": "", "segments": [], "language": "en"}


def test_json_keeps_every_character():
    text = ' "Zwölf" \\ 日本\n\t♪'
    content = json.loads(writers.to_json([segment(text=text), segment(text=" end")], ENGLISH))
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
    """Another engine's transcripts: its JSON through our writers gives its other files, and the same fields again."""
    folder = shared / "writers" / name
    golden = json.loads((folder / "gossos.json").read_text("utf-8"))
    segments = [
        segment(**one | {"words": one["words"] and [Word(**word) for word in one["words"]]})
        for one in golden["segments"]
    ]
    info = SimpleNamespace(language=golden["language"])
    for kind in ("srt", "vtt", "tsv", "txt"):
        written = writers.WRITERS[kind](segments, info, SubtitleOptions(**options))
        assert written.encode() == (folder / f"gossos.{kind}").read_bytes()
    for one in golden["segments"]:
        if one["words"] is None:
            del one["words"]  # openai-whisper has no key where there are no words
    assert json.loads(writers.to_json(segments, info)) == golden


def test_every_format_of_the_command_has_a_writer():
    from tilewhisper.engine.commands.main import FORMATS

    assert set(FORMATS) - {"all"} <= set(writers.WRITERS)


def test_jsonl_is_a_segment_of_json_a_line():
    segments = [segment(), segment(id=1, words=[Word(0.0, 0.5, " Hi", 0.9)])]
    lines = writers.jsonl(segments, ENGLISH).splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    assert [json.loads(line) for line in lines] == json.loads(writers.to_json(segments, ENGLISH))["segments"]


def test_jsonl_grows_a_line_a_segment(tmp_path):
    path = tmp_path / "sample.jsonl"
    path.write_text("old")
    segments = [segment(text=" 日本"), segment(id=1), segment(id=2)]
    with writers.JsonLines(path) as lines:
        for i, one in enumerate(segments, start=1):
            lines.write(one)
            assert path.read_text() == writers.jsonl(segments[:i], ENGLISH)


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_jsonl_that_is_stopped_in_a_line_ends_with_the_one_before(tmp_path, stop):
    path = tmp_path / "sample.jsonl"
    with writers.JsonLines(path) as lines:
        lines.write(segment())
        file = lines._file

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                if len(data) < 50:
                    raise stop
                return file.write(data[:40])

        lines._file = Full()
        with pytest.raises(type(stop)):
            lines.write(segment(id=1))
        assert path.read_text() == writers.jsonl([segment()], ENGLISH)
        lines._file = file
        lines.write(segment(id=2))
    assert path.read_text() == writers.jsonl([segment(), segment(id=2)], ENGLISH)


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
