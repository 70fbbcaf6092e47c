"""The charts of the page as inline SVG: each from one benchmark's rows, where they have something to draw."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from benchmark_page.benchmark import Benchmark
from benchmark_page.figures import Figures
from benchmark_page.results import Result
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

OURS, PEER, INK = "#0072B2", "#B8C4CE", "#33404A"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C", "#5B4B8A")
"""Okabe and Ito's, which the colour-blind can tell apart; lines also differ in their markers."""
MARKERS = "osD^vPX*"
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": "#9AA5AE",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6EAED",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_WIDTH = 6.0  # inches; small, so that text stays legible on a phone


Draw = Callable[[Axes], None]


def charts(benchmark: Benchmark, result: Result) -> Iterator[tuple[str, str]]:
    """Title and SVG of each chart of a benchmark that has something to show."""
    for number, (title, draw) in enumerate(_drawings(benchmark, result.rows)):
        yield title, _svg(f"{benchmark.name}-{number}", title, draw)


def _drawings(benchmark: Benchmark, rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    own = {"lengths": _lengths, "products": _roofline, "layers": _layers, "footprint": _memory}.get(benchmark.name)
    if own:
        yield from own(rows)
    elif benchmark.time:
        yield from _bars(benchmark, rows)
    if benchmark.name == "clips":
        yield from _errors(rows)


def _bars(benchmark: Benchmark, rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    assert benchmark.time
    median = benchmark.time[0]
    heading = next(column.heading for column in benchmark.columns if column.key == median)
    for model, of_model in _groups(rows, "model").items():
        timed = [row for row in of_model if row.get(median) is not None]
        if timed:
            title = ", ".join(filter(None, (benchmark.title, model, heading)))
            yield title, _bar_drawing(timed, benchmark.time, heading)


def _bar_drawing(rows: Sequence[Figures], keys: tuple[str, str, str], heading: str) -> Draw:
    median, least, largest = keys

    def draw(axes: Axes) -> None:
        names = [row["name"] for row in rows]
        values = [row[median] for row in rows]
        spread = [
            [max(row[median] - row.get(least, row[median]), 0) for row in rows],
            [max(row.get(largest, row[median]) - row[median], 0) for row in rows],
        ]
        axes.barh(range(len(rows)), values, color=[OURS if name.startswith("tilewhisper") else PEER for name in names])
        axes.errorbar(values, range(len(rows)), xerr=spread, fmt="none", ecolor=INK, capsize=3, linewidth=1)
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{heading} (less is better)")

    return draw


def _lengths(rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    for model, of_model in _groups(rows, "model").items():

        def draw(axes: Axes, of_model: Sequence[Figures] = of_model) -> None:
            for style, (name, own) in _styled(_groups(of_model, "name")):
                own = sorted(own, key=lambda row: row["audio"])
                at = [row["audio"] for row in own]
                axes.plot(at, [row["rtf"] for row in own], label=name, **style)
                axes.fill_between(
                    at,
                    [row["rtf_min"] for row in own],
                    [row["rtf_max"] for row in own],
                    color=style["color"],
                    alpha=0.15,
                    linewidth=0,
                )
            axes.set(xlabel="seconds of audio", ylabel="RTF (less is better)")
            _logarithmic(axes)
            _legend(axes)

        yield f"RTF against the length of the recording, {model}", draw


def _errors(rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    for model, of_model in _groups(rows, "model").items():
        timed = [row for row in of_model if row.get("rtf") is not None and row.get("word_error_rate") is not None]
        if not timed:
            continue

        def draw(axes: Axes, timed: Sequence[Figures] = timed) -> None:
            for style, (name, own) in _styled(_groups(timed, "name")):
                points = [row["rtf"] for row in own], [row["word_error_rate"] for row in own]
                axes.plot(*points, label=name, **{**style, "linestyle": "none", "markersize": 8})
            axes.set(xlabel="RTF (less is better)", ylabel="WER % (less is better)")
            _logarithmic(axes, "x")
            _legend(axes)

        yield f"Word errors against RTF, {model}", draw


def _memory(rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    known = [row for row in rows if row.get("parameters")]
    if not known:
        return

    def draw(axes: Axes) -> None:
        for style, (name, own) in _styled(_groups(known, "engine")):
            own = sorted(own, key=lambda row: row["parameters"])
            axes.plot([row["parameters"] for row in own], [row["peak_mb"] for row in own], label=name, **style)
        for row in known:
            if row["engine"] == known[0]["engine"]:
                at = (row["parameters"], row["peak_mb"])
                axes.annotate(row["model"], at, (0, 7), textcoords="offset points", ha="center", fontsize=9)
        axes.set(xlabel="million parameters", ylabel="peak MB (less is better)")
        _logarithmic(axes)
        axes.margins(0.15)
        _legend(axes)

    yield "Peak memory against the size of the model", draw


def _roofline(rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    if not rows:
        return

    def draw(axes: Axes) -> None:
        low = min(row["operations_per_byte"] for row in rows) / 2
        high = max(row["operations_per_byte"] for row in rows) * 2
        bandwidth = rows[0]["read_gb_s"]
        peaks = {row["instructions"]: row["peak"] for row in rows if row["peak"]}
        for kind, peak in peaks.items():
            ridge = max(low, peak / bandwidth) if bandwidth else low
            axes.plot([low, ridge, high], [min(peak, low * (bandwidth or peak)), peak, peak], color="#9AA5AE", lw=1)
            axes.annotate(f"{kind}, {peak:.0f} GOP/s", (high, peak), (-2, 3), textcoords="offset points", ha="right")
        for style, (name, own) in _styled(_groups(rows, "backend")):
            points = [row["operations_per_byte"] for row in own], [row["gops"] for row in own]
            axes.plot(*points, label=name, **{**style, "linestyle": "none", "alpha": 0.8})
        axes.set(xlim=(low, high))
        _logarithmic(axes)
        axes.set(xlabel="operations a byte from and to memory", ylabel="GOP/s (more is better)")
        _legend(axes)

    yield "Roofline: single products below the limits of memory and instructions", draw


def _layers(rows: Sequence[Figures]) -> Iterator[tuple[str, Draw]]:
    if not rows:
        return

    def draw(axes: Axes, key: str, label: str, scale: str) -> None:
        groups = _groups(rows, "backend")
        for style, (name, own) in _styled(groups):
            axes.plot([row["layer"] for row in own], [row[key] for row in own], label=name, **style)
        if key == "ms":
            own = next(iter(groups.values()))
            values = [row["float32_ms"] for row in own]
            axes.plot([row["layer"] for row in own], values, label="float32", color="#8C8C8C", linestyle="--")
        axes.set(yscale=scale, xlabel="layer", ylabel=label)
        axes.tick_params(axis="x", labelrotation=30 if len(rows) > 14 else 0)
        _legend(axes)

    yield (
        "The error of each layer on a backend",
        lambda axes: draw(axes, "error", "relative error of the states", "log"),
    )
    yield "The time of each layer on a backend", lambda axes: draw(axes, "ms", "ms (less is better)", "linear")


def _groups(rows: Sequence[Figures], key: str) -> Mapping[str, list[Figures]]:
    groups: dict[str, list[Figures]] = {}
    for row in rows:
        groups.setdefault(str(row.get(key) or ""), []).append(row)
    return groups


def _styled(groups: Mapping[str, list[Figures]]) -> Iterator[tuple[dict[str, Any], tuple[str, list[Figures]]]]:
    for number, group in enumerate(groups.items()):
        marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
        yield {"color": COLOURS[number % len(COLOURS)], "marker": marker, "markersize": 5, "linewidth": 1.5}, group


def _logarithmic(axes: Axes, sides: str = "xy") -> None:
    """Plain numbers at 1, 2 and 5: matplotlib writes powers, and where these are few, more between that overlap."""
    for side in sides:
        axes.set(**{f"{side}scale": "log"})
        axis: Axis = getattr(axes, f"{side}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    """Below the axes, where it hides no point."""
    axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.18), ncols=2)


@contextmanager
def _figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(name: str, title: str, draw: Draw) -> str:
    """The chart as one element of an HTML page: without prologue, its names unique in the page, read by its title."""
    with _figure(3.8) as (figure, axes):
        draw(axes)
        if len(axes.patches) > 6:
            figure.set_figheight(0.4 * len(axes.patches) + 1)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid=")|((?:xlink:)?href="#)|(url\(#)', lambda found: f"{found[0]}{name}-", svg)
    body = svg[svg.index(">") + 1 :].replace("xlink:href", "href").strip()
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view, "matplotlib writes a viewBox"
    label = f'<title id="{name}-title">{escape(title)}</title>'
    return f'<svg viewBox="{view[1]}" role="img" aria-labelledby="{name}-title">{label}\n{body}'
