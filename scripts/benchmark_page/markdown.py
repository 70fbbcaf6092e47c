"""Results as the markdown of docs/benchmarks.md. The same results always give the same text."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap

from benchmark_page.benchmark import NOTE, Benchmark, Column
from benchmark_page.figures import Figures
from benchmark_page.results import Result

_HEAD = """# Benchmarks

This page is generated. Do not edit it: `python scripts/make_benchmarks.py run` measures, and
`python scripts/make_benchmarks.py render` writes this file from `docs/benchmarks/latest.json`. Every run is
appended to `docs/benchmarks/history.jsonl`. `python scripts/compare.py all --html FILE` measures the speeds beside
every installed engine and writes a page with charts; with `--quick` it takes minutes instead of hours.

RTF is processing time / audio time (lower is better), speed is its inverse. Both leave out loading the model.
"Times the first" is a contender's time divided by that of the first row. WER is the word error rate after Whisper's
English normalisation. Compare the ratios: absolute times depend on the machine. Contenders take turns, so that a
machine that slows down slows all of them.
"""
_WIDTH = 120


def page(benchmarks: Sequence[Benchmark], results: Mapping[str, Result]) -> str:
    """One section for each benchmark, in order."""
    return "\n".join((_HEAD, *(_section(one, results.get(one.name)) for one in benchmarks)))


def _section(benchmark: Benchmark, result: Result | None) -> str:
    parts = [f"## {benchmark.title}", _wrapped(benchmark.about), _command_block(benchmark, result)]
    if result is None:
        parts.append(f"Not measured yet: `python scripts/make_benchmarks.py run {benchmark.name}`.")
    else:
        parts += ["\n".join(_table(benchmark.columns, result.rows)), _wrapped(provenance(result))]
    return "\n\n".join(parts) + "\n"


def _command_block(benchmark: Benchmark, result: Result | None) -> str:
    """The command that was run, or will be."""
    command = result.command if result else shlex.join(benchmark.command("../shared/data"))
    return f"```sh parse-only\n{_folded(command)}\n```"


def _table(columns: Sequence[Column], rows: Sequence[Figures]) -> Iterator[str]:
    filled = shown(columns, rows)
    yield _line(one.heading for one in filled)
    yield _line("---" if one.form is None else "---:" for one in filled)
    for row in rows:
        yield _line(cell(one, row) for one in filled)


def shown(columns: Sequence[Column], rows: Sequence[Figures]) -> list[Column]:
    """The columns that any row fills."""
    return [one for one in columns if any(row.get(one.key) is not None for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(column: Column, row: Figures) -> str:
    """A figure as text; a hyphen where the row has none."""
    value = row.get(column.key)
    if value is None:
        return "" if column is NOTE else "-"
    return str(value) if column.form is None else format(value, column.form)


def provenance(result: Result) -> str:
    """Where and when the figures were measured, in one sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in result.packages.items())
    return f"Commit {result.commit}, {result.date[:10]}; {result.threads} threads of {result.machine}; {versions}."


def _folded(command: str) -> str:
    """A shell command over several lines, indented from the second on; an option keeps its value on its line."""
    bound = re.sub(r"(--\S+) (?!--)", r"\1\0", command)
    return " \\\n".join(_lines(bound, _WIDTH - 2, "    ")).replace("\0", " ")


def _wrapped(text: str) -> str:
    return "\n".join(_lines(text, _WIDTH))


def _lines(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
