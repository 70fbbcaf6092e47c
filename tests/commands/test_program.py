"""How the process ends: early, but with all its output, its status, and what others registered for the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = "from tilewhisper.engine.commands.main import program; program()"
_PLAN = ("plan", "--shape", "3001,512,512")


def _run(*arguments: str, code: str = _PROGRAM, **options: object) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, timeout=60, check=False, **streams)


def test_all_that_is_written_arrives_and_what_is_registered_is_called(tilewhisper):
    done = _run(*_PLAN, code=f"import atexit; atexit.register(print, 'at the end'); {_PROGRAM}")
    said = tilewhisper(*_PLAN)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said.out}at the end\n", said.err)


def test_the_interpreter_is_not_taken_apart():
    taken_apart = "class Canary:\n    def __del__(self): print('taken apart')\ncanary = Canary()\n"
    assert "taken apart" not in _run(*_PLAN, code=taken_apart + _PROGRAM).stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("--version",), 0), (("nonsense",), 2), (("transcribe", "no-such-file.wav"), 2)],
)
def test_the_status_is_the_commands(arguments, status):
    done = _run(*arguments)
    assert done.returncode == status
    assert done.stdout or done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_is_lost_is_told():
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = _run(*_PLAN, stdout=full)
    finally:
        os.close(full)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
