"""The end of the process: all output arrives, the exit status is right, and exit handlers run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tilewhisper.engine.commands import main

_PROGRAM = "from tilewhisper.engine.commands.main import program; program()"
_PLAN = ("plan", "--shape", "3001,512,512")


def _run(*arguments: str, code: str = _PROGRAM, **options: object) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, timeout=60, check=False, **streams)


def test_all_output_arrives_and_exit_handlers_run(tilewhisper):
    done = _run(*_PLAN, code=f"import atexit; atexit.register(print, 'at the end'); {_PROGRAM}")
    expected = tilewhisper(*_PLAN)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected.out}at the end\n", expected.err)


def test_the_process_ends_by_public_means_only():
    """No private function of atexit, and no exit that skips the handlers of others."""
    sources = [path.read_text("utf-8") for path in Path(main.__file__).parent.glob("*.py")]
    assert not [word for word in ("atexit._", "os._exit") for source in sources if word in source]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("--version",), 0), (("nonsense",), 2), (("transcribe", "no-such-file.wav"), 2)],
)
def test_the_exit_status_is_the_commands(arguments, status):
    done = _run(*arguments)
    assert done.returncode == status
    assert done.stdout or done.stderr


def test_a_reader_that_stops_reading_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run(*_PLAN, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error():
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = _run(*_PLAN, stdout=full)
    finally:
        os.close(full)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
