"""Measure every workload of `compare.py all`: figures as JSON, and as one HTML page with charts."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmark_page.benchmark import Benchmark
from benchmark_page.catalog import BENCHMARKS, chosen, workloads
from benchmark_page.changes import disagreements, last, slow_downs
from benchmark_page.markdown import provenance
from benchmark_page.measuring import DATA, ROOT, measure
from benchmark_page.results import Result, append, load, runs
from benchmark_page.targets import verdicts
from rich.console import Console
from rich.table import Table

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.files import write_whole

HISTORY = ROOT / "docs/benchmarks/history.jsonl"


def run(args: argparse.Namespace) -> int:
    """Return 1 where a workload failed. Raises OptionError, OSError and ValueError."""
    if args.html:
        _check_charts()
    earlier = load(args.against) if args.against else {}
    if args.against and not earlier:
        raise OptionError(f"--against {args.against}: has no figures")
    history, results, failed = runs(args.history), {}, []
    for benchmark in _workloads(args.only):
        try:
            results[benchmark.name] = result = measure(benchmark, args.data, args.quick)
        except ValueError as e:
            print(f"compare: error: {e}", file=sys.stderr)
            failed.append(benchmark.name)
            continue
        append(args.history, result)
        _write(args, results, history)  # a later failure must not lose it
    _show(results, list(_slower(results, history)), list(disagreements(BENCHMARKS, results, earlier)))
    if failed:
        print(f"compare: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _workloads(names: Sequence[str] | None) -> list[Benchmark]:
    if unknown := set(names or ()) - {one.name for one in workloads()}:
        allowed = ", ".join(one.name for one in workloads())
        raise OptionError(f"unknown workload {sorted(unknown)[0]!r}; the workloads are {allowed}")
    return chosen(names) if names else workloads()


def _check_charts() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as e:
        raise OptionError(f"--html needs {e.name}: pip install 'tilewhisper[bench]'") from e


def _write(args: argparse.Namespace, results: Mapping[str, Result], history: Sequence[Result]) -> None:
    if args.json:
        write_whole(args.json, json.dumps([*map(asdict, results.values())], indent=1, ensure_ascii=False) + "\n")
    if args.html:
        from benchmark_page.page import page

        write_whole(args.html, page(workloads(), results, list(_slower(results, history))))


def _slower(results: Mapping[str, Result], history: Sequence[Result]) -> Iterator[str]:
    for name, result in results.items():
        yield from slow_downs(BENCHMARKS[name], result, last(history, result))


def _show(results: Mapping[str, Result], slower: Sequence[str], different: Sequence[str]) -> None:
    """Print the targets and what changed; each workload has printed its own table."""
    screen = console()
    table = Table("target", "model", box=None, pad_edge=False)
    for heading in ("bound", "measured", ""):
        table.add_column(heading, justify="right")
    for verdict in verdicts(results):
        table.add_row(*verdict.row)
    screen.print(table)
    for result in results.values():
        say(screen, f"{result.benchmark}: {provenance(result)}")
    _list(screen, "slower than before", slower)
    _list(screen, "outside the spread of --against", different)


def _list(screen: Console, heading: str, lines: Sequence[str]) -> None:
    for line in lines:
        say(screen, f"{heading}: {line}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(one.name for one in workloads())
    parser.add_argument("--quick", action="store_true", help="few clips, small models: minutes instead of hours")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"a workload; repeatable (default: {names})")
    parser.add_argument("--data", default=DATA, metavar="DIR", help="folder of recordings (default: %(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--html", type=output_file, metavar="FILE", help="write a page with charts")
    parser.add_argument("--against", type=Path, metavar="FILE", help="JSON of another run: say where they differ")
    parser.add_argument(
        "--history", type=Path, default=HISTORY, metavar="FILE", help="append every run here (default: %(default)s)"
    )
