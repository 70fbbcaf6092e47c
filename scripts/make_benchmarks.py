"""Measure the benchmarks of docs/benchmarks.md, and write that page from the figures.

    python scripts/make_benchmarks.py run                  # all of them: hours on a small machine
    python scripts/make_benchmarks.py run files memory     # these only; the others' figures stay
    python scripts/make_benchmarks.py render               # docs/benchmarks.md from docs/benchmarks/latest.json
    python scripts/make_benchmarks.py render all.json      # the same, after taking over what `compare.py all` wrote

`run` calls each benchmark's own script with --json, stores the figures with commit, date, machine and versions in
docs/benchmarks/latest.json, appends them to docs/benchmarks/history.jsonl, and renders the page. A benchmark that fails
(an engine is not installed, say) does not replace its old figures and is reported; the exit status is then 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark_page.benchmark import Benchmark
from benchmark_page.catalog import BENCHMARKS, chosen
from benchmark_page.markdown import page
from benchmark_page.measuring import DATA, ROOT, measure
from benchmark_page.results import append, load, store

PAGE = ROOT / "docs/benchmarks.md"
LATEST = ROOT / "docs/benchmarks/latest.json"
HISTORY = ROOT / "docs/benchmarks/history.jsonl"


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
    elif args.figures:
        try:
            _take_over(args.figures)
        except (ValueError, OSError) as e:
            print(f"make_benchmarks: error: {e}", file=sys.stderr)
            return 2
    PAGE.write_text(rendered(LATEST), encoding="utf-8")
    if failed:
        print(f"make_benchmarks: failed: {', '.join(failed)}; their old figures stay", file=sys.stderr)
    return int(bool(failed))


def rendered(latest: Path) -> str:
    """The page for the results in a file."""
    return page(list(BENCHMARKS.values()), load(latest))


def _take_over(figures: Path) -> None:
    """Store the results of a file as the latest ones. Raises OSError, and ValueError for those of a quick run."""
    results = load(figures)
    if not results:
        raise ValueError(f"{figures}: has no figures")
    if short := [name for name, one in results.items() if one.quick]:
        raise ValueError(f"{figures}: has figures of a quick run, such as {short[0]}: measure without --quick")
    store(LATEST, load(LATEST) | results, BENCHMARKS)


def _measured(benchmark: Benchmark, args: argparse.Namespace) -> bool:
    """Run one benchmark and store its figures at once: a later failure must not lose them."""
    try:
        result = measure(benchmark, args.data)
    except (ValueError, OSError) as e:
        print(f"make_benchmarks: error: {e}", file=sys.stderr)
        return False
    store(LATEST, load(LATEST) | {benchmark.name: result}, BENCHMARKS)
    append(HISTORY, result)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, store, render")
    run.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"(default: all: {', '.join(BENCHMARKS)})")
    run.add_argument("--data", default=DATA, metavar="DIR", help="folder of recordings (default: %(default)s)")
    render = commands.add_parser("render", help="write the page from the stored figures")
    render.add_argument("figures", nargs="?", type=Path, metavar="FILE", help="JSON of `compare.py all` to store first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
