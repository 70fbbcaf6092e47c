"""Fixtures that run the command in this process, or as the installed program if the test is about the process."""

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import require_weights
from stand_in import StandIn, segment

from tilewhisper.engine.commands.main import main


@dataclass(frozen=True)
class Finished:
    """A finished command: exit status, both streams, and the time of a process."""

    status: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("tilewhisper: error: ")]


@pytest.fixture(scope="session")
def tilewhisper() -> Callable[..., Finished]:
    """Run `tilewhisper ARGUMENTS` in this process."""

    def run(*arguments: object) -> Finished:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main([str(argument) for argument in arguments])
            except SystemExit as e:  # argparse exits on bad arguments
                status = e.code
        return Finished(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def installed() -> Callable[..., Finished]:
    """Run the installed `tilewhisper` as a process of its own, and measure its time."""
    program = Path(sys.executable).with_name("tilewhisper")
    command = str(program) if program.exists() else shutil.which("tilewhisper")
    if command is None:
        pytest.skip("the command tilewhisper is not installed beside this Python")

    def run(*arguments: object, **options: object) -> Finished:
        started = time.monotonic()
        done = subprocess.run(
            [command, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False, **options
        )
        return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    return run


@pytest.fixture
def model(monkeypatch):
    """Replace the command's model by a stand-in; returns the class, which records its calls."""
    require_weights("tiny.en")
    monkeypatch.setattr("tilewhisper.engine.whisper_model.WhisperModel", StandIn)
    monkeypatch.setattr(StandIn, "requests", [], raising=False)
    monkeypatch.setattr(StandIn, "together", [], raising=False)
    monkeypatch.setattr(StandIn, "transcript", [segment(), segment(id=1, text=" And more.")], raising=False)
    monkeypatch.setattr(StandIn, "language", "en", raising=False)
    monkeypatch.setattr(StandIn, "stop", None, raising=False)
    return StandIn
