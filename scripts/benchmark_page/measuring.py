"""Run a benchmark's command and keep its figures with commit, date, machine and versions."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmark_page.benchmark import Benchmark
from benchmark_page.results import Result

from tilewhisper.engine.report import machine

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("tilewhisper", "torch", "transformers", "openai-whisper", "openvino-genai", "openvino", "faster-whisper"),
    *("ctranslate2", "onnxruntime", "onnx-asr", "pywhispercpp"),
)
DATA = "../shared/data"


def measure(benchmark: Benchmark, data: str, quick: bool = False) -> Result:
    """Run a benchmark's command in the root of the repository. Raises ValueError where it fails."""
    command = benchmark.command(data, quick)
    print(f"+ {shlex.join(command)}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "figures.json")
        environment = os.environ | {"OMP_NUM_THREADS": str(benchmark.threads)}
        done = subprocess.run([*_program(command), "--json", str(output)], cwd=ROOT, env=environment, check=False)
        if done.returncode not in benchmark.statuses or not output.exists():
            raise ValueError(f"{benchmark.name}: its command ended with status {done.returncode}")
        rows = benchmark.figures(json.loads(output.read_text(encoding="utf-8")))
    return Result(
        benchmark=benchmark.name,
        command=shlex.join(command),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        machine=machine().cpu,
        threads=benchmark.threads,
        packages=_versions(),
        rows=rows,
        quick=quick,
    )


def _program(command: Sequence[str]) -> list[str]:
    """The command with this interpreter, or with the program installed beside it."""
    first, *rest = command
    return [sys.executable if first == "python" else str(Path(sys.executable).with_name(first)), *rest]


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    # Results of this run change files below docs/, but not the measured code.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return git("rev-parse", "--short=7", "HEAD") + (" + changes" if changed else "")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
