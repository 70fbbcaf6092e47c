"""Measure the benchmarks of docs/benchmarks.md, and write that page from the figures.

    python scripts/make_benchmarks.py run                  # all of them: hours on a small machine
    python scripts/make_benchmarks.py run files memory     # these only; the others' figures stay
    python scripts/make_benchmarks.py render               # docs/benchmarks.md from docs/benchmarks/latest.json

`run` calls each benchmark's own script with --json, stores the figures with commit, date, machine and versions in
docs/benchmarks/latest.json, appends them to docs/benchmarks/history.jsonl, and renders the page. A benchmark that fails
(an engine is not installed, say) does not replace its old figures and is reported; the exit status is then 1.
"""

import argparse
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

from benchmark_page.catalog import BENCHMARKS, Benchmark, chosen
from benchmark_page.markdown import page
from benchmark_page.results import Result, append, load, store

from tilewhisper.engine.report import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/benchmarks.md"
LATEST = ROOT / "docs/benchmarks/latest.json"
HISTORY = ROOT / "docs/benchmarks/history.jsonl"
PACKAGES = (
    *("tilewhisper", "torch", "transformers", "openai-whisper", "openvino-genai", "openvino", "faster-whisper"),
    *("ctranslate2", "onnxruntime", "pywhispercpp"),
)
DATA = "../shared/data"
THREADS = 2
"""Of every benchmark, also of those without such an option."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    failed = []
    if args.command == "run":
        try:
            benchmarks = chosen(args.benchmarks)
        except ValueError as e:
            print(f"make_benchmarks: error: {e}", file=sys.stderr)
            return 2
        failed = [one.name for one in benchmarks if not _measured(one, args)]
    PAGE.write_text(rendered(LATEST), encoding="utf-8")
    if failed:
        print(f"make_benchmarks: failed: {', '.join(failed)}; their old figures stay", file=sys.stderr)
    return int(bool(failed))


def rendered(latest: Path) -> str:
    """The page for the results in a file."""
    return page(list(BENCHMARKS.values()), load(latest))


def _measured(benchmark: Benchmark, args: argparse.Namespace) -> bool:
    """Run one benchmark and store its figures at once: a later failure must not lose them."""
    try:
        result = measure(benchmark, args)
    except (ValueError, OSError) as e:
        print(f"make_benchmarks: error: {e}", file=sys.stderr)
        return False
    store(LATEST, load(LATEST) | {benchmark.name: result}, BENCHMARKS)
    append(HISTORY, result)
    return True


def measure(benchmark: Benchmark, args: argparse.Namespace) -> Result:
    """Run a benchmark's command in the root of the repository. Raises ValueError where it fails."""
    command = benchmark.command(args.data)
    print(f"+ {shlex.join(command)}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "figures.json")
        environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
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
        threads=THREADS,
        packages=_versions(),
        rows=rows,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, store, render")
    run.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"(default: all: {', '.join(BENCHMARKS)})")
    run.add_argument("--data", default=DATA, metavar="DIR", help="folder of recordings (default: %(default)s)")
    commands.add_parser("render", help="write the page from the stored figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
