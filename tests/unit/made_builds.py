"""Sources of small libraries, and what a stand-in for their compiler has done."""

import logging
import subprocess
import sys
from pathlib import Path

from tilewhisper.kernels.cpu.build import Build

EXPORTED = 'extern "C" __attribute__((visibility("default")))'


def links(script: Path) -> int:
    """How many libraries the stand-in has linked."""
    runs = script.with_name(f"{script.name}.runs")
    return runs.read_text().count("-shared") if runs.exists() else 0


def warnings(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def another_process(build: Build, **options) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from tilewhisper.kernels.cpu.build import Build, library\n"
        "sources, cache = map(Path, sys.argv[1:]); print(library(Build(sources, cache=cache)))"
    )
    command = [sys.executable, "-c", code, str(build.sources), str(build.cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
