"""Results as the markdown of docs/benchmarks.md. The same results always give the same text."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap

from benchmark_page.catalog import Benchmark, Column, Figures
from benchmark_page.results import Result

_HEAD = """# Benchmarks

This page is generated. Do not edit it: `python scripts/make_benchmarks.py run` measures, and
`python scripts/make_benchmarks.py render` writes this file from `docs/benchmarks/latest.json`. Every run is
appended to `docs/benchmarks/history.jsonl`.

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
    parts = [f"## {benchmark.title}", _wrapped(benchmark.about), _command_block(benchmark)]
    if result is None:
        parts.append(f"Not measured yet: `python scripts/make_benchmarks.py run {benchmark.name}`.")
    else:
        parts += ["\n".join(_table(benchmark.columns, result.rows)), _wrapped(_provenance(result))]
    return "\n\n".join(parts) + "\n"


def _command_block(benchmark: Benchmark) -> str:
    return f"```sh parse-only\n{_folded(shlex.join(benchmark.command('../shared/data')))}\n```"


def _table(columns: Sequence[Column], rows: Sequence[Figures]) -> Iterator[str]:
    shown = [one for one in columns if any(row.get(one.key) is not None for row in rows)]
    yield _line(one.heading for one in shown)
    yield _line("---" if one.form is None else "---:" for one in shown)
    for row in rows:
        yield _line(_cell(one, row) for one in shown)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, row: Figures) -> str:
    value = row.get(column.key)
    if value is None:
        return "-"
    return str(value) if column.form is None else format(value, column.form)


def _provenance(result: Result) -> str:
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
