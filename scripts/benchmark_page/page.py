"""Results as one HTML page without external parts: the targets, then charts and figures of each benchmark."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from string import Template

from benchmark_page.benchmark import Benchmark
from benchmark_page.charts import charts
from benchmark_page.markdown import cell, provenance, shown
from benchmark_page.results import Result
from benchmark_page.targets import Verdict, verdicts

QUICK = " <strong>A quick run:</strong> on fewer recordings and smaller models, as its command says."
FOLDED_ABOVE = 24
"""Rows of a table, above which it opens at a click."""
_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Benchmarks of tilewhisper</title>
<style>
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #33404a; background: #fff; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 3rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; max-width: 40rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid #e6eaed; white-space: nowrap; }
td.number, th.number { text-align: right; }
.met { color: #00664b; } .not-met { color: #a63c00; font-weight: 600; }
.about, .setting { max-width: 46rem; } .setting { font-size: 14px; color: #5a6872; } code { overflow-wrap: anywhere; }
</style>
<h1>Benchmarks of tilewhisper</h1>
<p class="about">RTF is processing time / audio time, WER the word error rate after Whisper's English normalisation.
Contenders take turns in processes of their own, on the same audio and weights. A bar is the median, its line the
spread from the fastest to the slowest run. Compare ratios: absolute times depend on the machine.</p>
$warnings
<h2>Targets</h2>
$targets
$sections
</html>
""")


def page(benchmarks: Sequence[Benchmark], results: Mapping[str, Result], slow_downs: Sequence[str] = ()) -> str:
    """The page of those benchmarks that have results; `slow_downs` are shown at its top."""
    sections = [_section(one, results[one.name]) for one in benchmarks if one.name in results]
    items = "".join(f"<li>{escape(line)}</li>" for line in slow_downs)
    return _PAGE.substitute(
        warnings=f"<h2>Slower than before</h2>\n<ul>{items}</ul>" if items else "",
        targets=_targets(verdicts(results)),
        sections="\n".join(sections),
    )


def _section(benchmark: Benchmark, result: Result) -> str:
    figures = "\n".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in charts(benchmark, result)
    )
    columns = shown(benchmark.columns, result.rows)
    rows = ([(column.form is not None, cell(column, row)) for column in columns] for row in result.rows)
    table = _table([(column.form is not None, column.heading) for column in columns], rows)
    return "\n".join(
        (
            f'<h2 id="{benchmark.name}">{escape(benchmark.title)}</h2>',
            f'<p class="about">{_with_code(benchmark.about)}{QUICK if result.quick else ""}</p>',
            f'<div class="charts">{figures}</div>' if figures else "",
            _folded(table) if len(result.rows) > FOLDED_ABOVE else table,
            f'<p class="setting"><code>{escape(result.command)}</code><br>{escape(provenance(result))}</p>',
        )
    )


def _folded(table: str) -> str:
    return f"<details><summary>All figures</summary>{table}</details>"


def _with_code(text: str) -> str:
    """Markdown's backticks as HTML."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _targets(found: Sequence[Verdict]) -> str:
    headings = [(False, "figure"), (False, "model"), (True, "target"), (True, "measured"), (False, "")]
    rows = "".join(f"<tr>{''.join(cells)}</tr>\n" for cells in map(_target_cells, found))
    head = "".join(_cell("th", *heading) for heading in headings)
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}</table></div>'


def _target_cells(verdict: Verdict) -> Iterator[str]:
    what, model, bound, measured, text = verdict.row
    yield from (_cell("td", False, what), _cell("td", False, model), _cell("td", True, bound))
    yield _cell("td", True, measured)
    yield f'<td class="{text.replace(" ", "-")}">{text}</td>'


def _table(headings: Iterable[tuple[bool, str]], rows: Iterable[Iterable[tuple[bool, str]]]) -> str:
    head = "".join(_cell("th", *heading) for heading in headings)
    body = "\n".join(f"<tr>{''.join(_cell('td', *each) for each in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}\n</table></div>'


def _cell(tag: str, number: bool, text: str) -> str:
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"
