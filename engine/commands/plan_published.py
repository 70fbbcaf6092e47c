"""`tilewhisper plan --published`: published times beside their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tilewhisper.engine.commands.screen import say
from tilewhisper.kernels.xdna.calibration import (
    MEDIAN_TARGET,
    WORST_TARGET,
    Comparison,
    Errors,
    all_errors,
    compare,
)
from tilewhisper.kernels.xdna.cost import ArrayProfile
from tilewhisper.kernels.xdna.not_comparable import NOT_COMPARABLE, NotComparable

_NATIVE = (
    "No source times a product of the whole array with native bf16: xdna2-native rests on one core's cycles, and on "
    "transfers, launches and row functions that do not depend on the multiplication."
)


def show(screen: Console, profiles: Sequence[ArrayProfile]) -> None:
    for profile in profiles:
        say(screen, f"{profile.name}: {profile.summary}")
        screen.print(_comparisons(compare(profile)))
        screen.print()
    screen.print(_errors(all_errors(profiles)))
    say(screen, "Rows that were held out took no part in a fit; a given row is itself a figure of its profile.")
    say(screen, f"The targets are a median of {MEDIAN_TARGET:.0%} and a worst row of {WORST_TARGET:.0%}.")
    if any(profile.name == "xdna2-native" for profile in profiles):
        say(screen, _NATIVE)
    screen.print()
    generations = {profile.device.name for profile in profiles}
    screen.print(_not_comparable(row for row in NOT_COMPARABLE if row.generation in {*generations, "cpu"}))


def to_json(profiles: Sequence[ArrayProfile]) -> dict[str, Any]:
    rows = [comparison for profile in profiles for comparison in compare(profile)]
    return {
        "published": [
            {
                "profile": c.profile,
                **{key: value for key, value in asdict(c.row).items() if key not in ("profiles", "loads")},
                "predicted_seconds": c.predicted,
                "ratio": c.ratio,
            }
            for c in rows
        ],
        "errors": [asdict(entry) for entry in all_errors(profiles)],
        "not_comparable": [asdict(row) for row in NOT_COMPARABLE],
    }


def _comparisons(comparisons: Iterable[Comparison]) -> Table:
    table = Table("published", "M, K, N", "core tile", "result", box=None, pad_edge=False)
    for heading in ("columns", "value", "measured ms", "predicted ms", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("use")
    table.add_column("source")
    for c in comparisons:
        row = c.row
        table.add_row(
            row.what,
            ", ".join(map(str, row.shape or ())),
            str(row.tile or ""),
            row.dtype.rpartition(" ")[2],
            str(row.columns or ""),
            _value(row.value, row.unit),
            f"{row.seconds * 1e3:,.4g}",
            f"{c.predicted * 1e3:,.4g}",
            f"{c.ratio:.2f}",
            row.use,
            row.source,
        )
    return table


def _errors(entries: Iterable[Errors]) -> Table:
    table = Table("error", box=None, pad_edge=False)
    for heading in ("rows", "fitted figures", "median", "worst"):
        table.add_column(heading, justify="right")
    for entry in entries:
        figures = str(entry.fitted_figures) if entry.fitted_figures else "none"
        table.add_row(entry.name, str(entry.rows), figures, f"{entry.median:.1%}", f"{entry.worst:.1%}")
    return table


def _not_comparable(rows: Iterable[NotComparable]) -> Table:
    table = Table("not predicted", "", box=None, pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("why")
    table.add_column("source")
    for row in rows:
        size = f" {', '.join(map(str, row.shape))}" if row.shape else ""
        why = f"a claim: {row.why}" if row.claim else row.why
        table.add_row(row.generation, f"{row.what}{size}", _value(row.value, row.unit), why, row.source)
    return table


def _value(value: float | tuple[float, ...], unit: str) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return f"{', '.join(f'{each:,g}' for each in values)} {unit}"
