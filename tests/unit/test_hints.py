"""Arguments that are not understood get the full command to type."""

import pytest

from tilewhisper.engine.commands.hints import missing_command
from tilewhisper.engine.commands.parser import parse

COMMANDS = ("transcribe", "layers", "bench")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-x.wav", "a b.wav", "notes"):
        (tmp_path / name).touch()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], None),
        (["transcribe", "x.wav"], None),
        (["--help"], None),
        (["--version"], None),
        (["x.wav"], "'x.wav' is not a command; to transcribe: tilewhisper transcribe x.wav"),
        (["X.MP3", "y"], "'X.MP3' is not a command; to transcribe: tilewhisper transcribe X.MP3 y"),
        (["a b.wav"], "'a b.wav' is not a command; to transcribe: tilewhisper transcribe 'a b.wav'"),
        (["notes"], "'notes' is not a command; to transcribe: tilewhisper transcribe notes"),
        (["-"], "'-' is not a command; to transcribe: tilewhisper transcribe -"),
        (["-x.wav"], "'-x.wav' is not a command; to transcribe: tilewhisper transcribe ./-x.wav"),
        (
            ["--model", "base", "x.wav"],
            "'--model' is not a command; to transcribe: tilewhisper transcribe --model base x.wav",
        ),
        (["transcrib", "x.wav"], "'transcrib' is not a command; did you mean transcribe?"),
        (["sing"], "'sing' is not a command; the commands are transcribe, layers, bench"),
        (["--models"], "'--models' is not a command; the commands are transcribe, layers, bench"),
    ],
)
def test_words_that_start_with_no_command(words, error):
    assert missing_command(words, COMMANDS) == error


@pytest.mark.parametrize("words", [["transcribe", "-x.wav"], ["transcribe", "a b.wav", "-x.wav"], ["bench", "-x.wav"]])
def test_a_file_that_looks_like_a_flag_is_recognised(words, capsys):
    with pytest.raises(SystemExit):
        parse(words)
    assert capsys.readouterr().err.endswith("; to give the file -x.wav, write ./-x.wav\n")


def test_other_errors_have_no_hint(capsys):
    with pytest.raises(SystemExit):
        parse(["transcribe", "x.wav", "--no_such_flag"])
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: --no_such_flag\n")
