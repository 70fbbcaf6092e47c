"""`tilewhisper listen -`: PCM on standard input, the text, the files that grow, and input that does not fit."""

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper.engine.commands import listen_files, main
from tilewhisper.engine.commands.listen_cues import Cues
from tilewhisper.engine.pipeline.live_events import Final, SpeechStopped
from tilewhisper.engine.results import Word

pytest.importorskip("silero_vad", reason="live transcription needs pip install 'tilewhisper[vad]'")

SAMPLE_END = "take your questions"
"""The last words, which are in one cue wherever the text before them is cut."""


def pcm() -> bytes:
    return soundfile.read(SAMPLE, dtype="int16")[0].tobytes()


def listen(monkeypatch, data: bytes, *flags: str) -> int:
    require_weights("tiny.en")
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdin", stream)
    return main.main(["listen", "-", "--model", "tiny.en", "--policy", "torch", *flags])


def test_text_on_standard_output_and_files(monkeypatch, capsys, tmp_path):
    assert listen(monkeypatch, pcm(), "-f", "srt,vtt,jsonl", "-o", str(tmp_path / "new")) == 0
    out, err = capsys.readouterr()
    assert SAMPLE_WORDS in out and "CPU seconds per second" in err
    srt, vtt, lines = ((tmp_path / "new" / f"live.{name}").read_text() for name in ("srt", "vtt", "jsonl"))
    assert srt.startswith("1\n00:00:0") and "\n\n2\n00:00:0" in srt and SAMPLE_END in srt
    assert vtt.startswith("WEBVTT\n\n00:0") and vtt.count("WEBVTT") == 1
    cues = [json.loads(line) for line in lines.splitlines()]
    assert " ".join(cue["text"] for cue in cues) == " ".join(out.split())
    assert all(0 <= word["start"] <= word["end"] <= 7.5 for cue in cues for word in cue["words"])


def test_another_rate_and_two_channels(monkeypatch, capsys):
    samples = np.frombuffer(pcm(), np.int16)
    assert listen(monkeypatch, np.repeat(samples, 4).tobytes(), "--rate", "32000", "--channels", "2") == 0
    assert SAMPLE_WORDS in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        (pcm()[:-1], (), "1 of the 2 bytes of a sample"),
        (b"", ("--rate", "1"), "rate must be"),
        (b"", ("--channels", "0"), "channels must be"),
        (b"", ("--language", "de"), "English"),
    ],
)
def test_input_that_does_not_fit(monkeypatch, capsys, data, flags, message):
    assert listen(monkeypatch, data, *flags) == 2
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err
    assert not data or SAMPLE_WORDS in out, "what was said until then is shown"


def test_no_audio_is_no_error(monkeypatch, capsys):
    assert listen(monkeypatch, b"") == 0
    assert capsys.readouterr() == ("", "no audio arrived\n")


_PROGRAM = """
import signal
from tilewhisper.engine.commands.main import program

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
program()
"""


def test_ctrl_c_ends_with_what_was_said(tmp_path):
    require_weights("tiny.en")
    command = [sys.executable, "-c", _PROGRAM, "listen", "-"]
    flags = ["--model", "tiny.en", "--policy", "torch", "--threads", "1", "-f", "jsonl", "-o", str(tmp_path)]
    with subprocess.Popen([*command, *flags], stdin=-1, stdout=-1, stderr=-1) as listening:
        silence = bytes(48_000)
        listening.stdin.write(pcm() + silence + pcm()[:70_000])
        listening.stdin.flush()
        end = time.monotonic() + 60
        while not (tmp_path / "live.jsonl").exists() or not (tmp_path / "live.jsonl").read_text():
            assert time.monotonic() < end and listening.poll() is None
            time.sleep(0.1)
        time.sleep(1)  # the beginning of the second phrase is read as well
        listening.send_signal(signal.SIGINT)
        listening.wait(timeout=60)  # standard input is still open
        out, err = listening.communicate()
    assert listening.returncode == 0, err
    assert out.count(b"meeting") == 2 and b"Traceback" not in err


def test_an_unknown_format_and_the_device_without_its_package(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main.main(["listen", "-", "-f", "json"])
    assert "did you mean jsonl" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for flags in (["--list_devices"], ["--model", "tiny.en"]):
        assert main.main(["listen", *flags]) == 2
        assert "pip install 'tilewhisper[live]'" in capsys.readouterr().err


def test_cues_end_at_sentences_phrases_and_their_length():
    cues = Cues()
    said = [
        Word(number, number + 0.9, f" {word}", 1.0) for number, word in enumerate(["One.", "two", "three.", "four"])
    ]
    found = [*cues.take(Final("".join(word.word for word in said), tuple(said), "en"))]
    found += cues.take(SpeechStopped(9))
    assert [cue.text for cue in found] == [" One. two three.", " four"]
    long = tuple(Word(number, number + 1, f" {number}", 1.0) for number in range(10))
    (first,) = cues.take(Final("", long, "en"))
    assert (first.start, first.end) == (0, 7)


def test_a_file_that_cannot_be_written_does_not_stop_the_others(monkeypatch, capsys, tmp_path):
    if not listen_files.Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "live.txt").symlink_to("/dev/full")
    assert listen(monkeypatch, pcm(), "-f", "txt,srt", "-o", str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert "cannot write" in err and "live.txt" in err and SAMPLE_WORDS in out
    assert SAMPLE_END in (tmp_path / "live.srt").read_text()
