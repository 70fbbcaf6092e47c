"""Standard input, output and error in every state: piped, full, closed, in a poor encoding. Text and files survive."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@pytest.fixture
def shell(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a line of shell in an empty folder; $T is the command, $S the sample."""
    require_weights("tiny.en")
    program = f"{sys.executable} -c 'from tilewhisper.engine.commands.main import program; program()'"

    def run(line: str, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment: str):
        return subprocess.run(
            ["bash", "-c", line.replace("$T", program).replace("$S", str(SAMPLE))],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="surrogateescape",
            timeout=100,
            check=False,
        )

    return run


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on standard error of a command that failed."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tilewhisper: error: ")
    assert done.returncode == 2
    return line.removeprefix("tilewhisper: error: ")


# --- standard input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["cat $S | $T transcribe -", "$T transcribe - < $S", "$T transcribe <(cat $S)"])
def test_audio_from_standard_input_is_transcribed(shell, line):
    done = shell(line)
    assert done.returncode == 0
    assert SAMPLE_WORDS in done.stdout


def test_a_named_pipe_is_transcribed(shell):
    done = shell("mkfifo pipe.wav; cat $S > pipe.wav & $T transcribe pipe.wav -f txt; wait")
    assert done.returncode == 0
    assert done.stderr.startswith("pipe.wav: is a FIFO; waiting until another program has written the audio to it\n")
    assert SAMPLE_WORDS in done.stdout


def test_the_files_of_standard_input_are_named_stdin(shell, tmp_path):
    done = shell("cp $S a.flac; cat $S | $T transcribe - a.flac -o out -f srt,vtt -f txt --report r.json")
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{stem}.{kind}" for stem in ("stdin", "a") for kind in ("srt", "vtt", "txt")
    }
    assert "standard input ──" in done.stderr
    assert (tmp_path / "out" / "stdin.txt").read_text() == (tmp_path / "out" / "a.txt").read_text()
    assert '"file": "-"' in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("$T transcribe - < /dev/zero", "standard input: is a device"),
        ("$T transcribe - < /dev/null", "standard input: is a device"),
        ("$T transcribe - <&-", "standard input: is closed"),
        ("true | $T transcribe -", "standard input: is empty (0 bytes)"),
        ("echo no audio | $T transcribe -", "standard input: not audio"),
        ("$T transcribe /dev/urandom", "/dev/urandom: is a device"),
        ("$T transcribe https://example.com/a.mp3", "https://example.com/a.mp3: URLs are not fetched"),
        ("$T bench - < $S", "standard input: can be read only once"),
        ("mkfifo pipe; $T profile pipe", "pipe: can be read only once"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused(shell, line, error):
    assert the_error(shell(line)).startswith(error)


# --- standard output ----------------------------------------------------------------------------------------------


@needs_full
@pytest.mark.parametrize("arguments", ["transcribe $S", "--help", "transcribe --help", "--version", "doctor", "layers"])
def test_a_full_disk_behind_standard_output_is_one_line(shell, arguments):
    assert the_error(shell(f"$T {arguments} > /dev/full")) == "cannot write to standard output: No space left on device"


def test_a_closed_standard_output_is_an_error(shell):
    assert the_error(shell("$T transcribe $S >&-")) == "cannot write to standard output: it is closed"


@needs_full
def test_files_are_written_although_standard_output_is_full(shell, tmp_path):
    done = shell("$T transcribe $S -o out -f txt --report r.json > /dev/full")
    assert done.returncode == 3
    assert done.stderr.count("cannot write to standard output: No space left on device") == 1
    assert done.stderr.splitlines()[-1] == "tilewhisper: failed: standard output"
    assert SAMPLE_WORDS in (tmp_path / "out" / "sample.txt").read_text()
    assert '"error": "cannot write to standard output' in (tmp_path / "r.json").read_text()


def test_files_are_written_although_the_reader_has_gone(shell, tmp_path):
    done = shell("$T transcribe $S -o out -f txt | true; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert SAMPLE_WORDS in (tmp_path / "out" / "sample.txt").read_text()


@needs_full
@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("$T profile $S --runs 1 --json x.json --trace t.json", ("x.json", "t.json")),
        ("$T plan --shape 3001,512,512 --json x.json", ("x.json",)),
    ],
)
def test_figures_are_written_although_standard_output_is_full(shell, tmp_path, line, files):
    error = the_error(shell(f"{line} > /dev/full"))
    assert error == "cannot write to standard output: No space left on device"
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_figures_may_go_to_standard_output(shell, tmp_path):
    piped = shell("$T plan --shape 3001,512,512 --json /dev/stdout | cat")
    to_file = shell("$T plan --shape 3001,512,512 --json /dev/stdout > plan.txt")
    assert (piped.returncode, piped.stderr, to_file.returncode, to_file.stderr) == (0, "", 0, "")
    for text in (piped.stdout, (tmp_path / "plan.txt").read_text()):
        table, brace, figures = text.partition("\n{\n")
        assert "descriptors" in table
        assert json.loads(brace + figures)["prediction"]


def test_a_dash_is_no_output_folder(shell, tmp_path):
    assert the_error(shell("$T transcribe $S -o -")).startswith("--output_dir must be a folder, got -: the text is")
    assert list(tmp_path.iterdir()) == []


def test_a_text_whose_file_cannot_be_written_is_printed(shell, tmp_path):
    done = shell("ulimit -f 0; trap '' XFSZ; $T transcribe $S --verbose False -f txt")
    assert done.returncode == 2
    assert SAMPLE_WORDS in done.stdout
    assert done.stderr == "tilewhisper: error: cannot write sample.txt: File too large\n"
    assert list(tmp_path.iterdir()) == []


# --- standard error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [pytest.param("2>/dev/full", marks=needs_full), "2>&-", "2> >(true)"])
def test_text_is_printed_although_standard_error_is_lost(shell, state):
    done = shell(f"$T transcribe $S {state}")
    assert done.returncode == 0
    assert SAMPLE_WORDS in done.stdout


def test_an_error_without_standard_error_is_not_taken_for_text(shell):
    done = shell("$T transcribe nowhere.wav 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


# --- environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "environment"),
    [
        ("$T transcribe --help", {"PYTHONIOENCODING": "ascii"}),
        ("$T doctor", {"LC_ALL": "C"}),
        ("$T transcribe ж.flac $S", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    ],
)
def test_characters_that_the_encoding_lacks_are_replaced(shell, tmp_path, environment, line):
    (tmp_path / "ж.flac").write_bytes(SAMPLE.read_bytes())
    done = shell(line, **environment)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_name_that_is_no_unicode_is_transcribed(shell, tmp_path):
    done = shell(r"cp $S $'\xff.flac'; $T transcribe $'\xff.flac' -f srt --report r.json")
    assert done.returncode == 0
    assert (tmp_path / os.fsdecode(b"\xff.srt")).exists()


@pytest.mark.parametrize("columns", ["0", "1"])
def test_any_width_of_the_terminal_shows_everything(shell, columns):
    controller, terminal = os.openpty()
    shown = []
    reader = threading.Thread(target=lambda: shown.extend(iter(lambda: _read(controller), b"")))
    reader.start()
    done = shell("$T transcribe $S", COLUMNS=columns, stdout=terminal, stderr=terminal)
    os.close(terminal)
    reader.join(timeout=10)
    assert done.returncode == 0
    text = b"".join(shown).decode()
    assert "Traceback" not in text
    assert "".join(SAMPLE_WORDS.split()) in "".join(text.split())


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 4096)
    except OSError:  # Linux's end of a terminal
        return b""


def test_a_deleted_working_folder_is_one_line(shell):
    error = the_error(shell("mkdir gone; cd gone; rmdir ../gone; $T transcribe $S -f srt"))
    assert error.startswith("the working folder no longer exists")


def test_no_home_and_no_temporary_folder_are_no_error(shell, tmp_path):
    """By torch: to compile the kernels, which only the home caches, takes 20 s. See tests/unit/test_build.py."""
    done = shell("$T transcribe $S --policy torch", HOME="/nonexistent", TMPDIR="/nonexistent")
    assert done.returncode == 0
    assert SAMPLE_WORDS in done.stdout
