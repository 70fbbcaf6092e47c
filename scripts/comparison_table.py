"""Print the results of a comparison as a table with a legend."""

from collections.abc import Callable, Sequence
from typing import Any

from comparison import WRONG_ABOVE, Row
from rich.table import Table

from tilewhisper.engine.commands.screen import console, say

_SPEED: dict[str, Callable[[Row], str]] = {
    "RTF": lambda row: _number(row.rtf, ".4f"),
    "min": lambda row: _number(row.rtf_min, ".4f"),
    "max": lambda row: _number(row.rtf_max, ".4f"),
    "x the first": lambda row: _number(row.ratio, ".2f"),
    "median x": lambda row: _number(row.median_ratio, ".2f"),
    "WER %": lambda row: f"{row.word_error_rate:.2f}",
}
COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "clips": _SPEED,
    "files": {name: value for name, value in _SPEED.items() if name != "median x"},
    "lengths": _SPEED,
    "long": _SPEED
    | {
        "out of order": lambda row: str(row.misplaced),
        "last end s": lambda row: _number(row.end_error, "+.2f"),
    },
    "token": {
        "tokens": lambda row: _number(row.tokens, "d"),
        "ms a token": lambda row: _milliseconds(row.token_seconds),
        "min": lambda row: _milliseconds(row.token_seconds_min),
        "max": lambda row: _milliseconds(row.token_seconds_max),
        "TPOT ms": lambda row: _milliseconds(row.step_seconds),
        "WER %": _SPEED["WER %"],
    },
}
LEGENDS = {
    "clips": "median x: median of the clips' ratios",
    "lengths": "median x: median of the lengths' ratios",
    "files": "RTF: of all clips together",
    "long": "last end s: end of the last segment - end of speech",
    "token": "ms a token: all time after the encoder; TPOT: the same without prompts and cross-attention K/V",
}


def show(result: dict[str, Any], rows: Sequence[Row]) -> None:
    """Print the rows of `compare.compare`'s result."""
    columns = COLUMNS[result["command"]]
    table = Table(result["model"], box=None, pad_edge=False)
    for heading in columns:
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        note = f"wrong text: WER more than {WRONG_ABOVE:g} points above the median" if row.wrong else ""
        table.add_row(row.name, *(value(row) for value in columns.values()), note)
    for name, reason in result["left_out"].items():
        table.add_row(name, *("-" for _ in columns), reason)
    recordings, machine = result["recordings"], result["machine"]
    audio = recordings[0]["name"] if len(recordings) == 1 else f"{len(recordings)} clips"
    seconds = sum(recording["seconds"] for recording in recordings)
    search = "greedy" if result.get("beam_size", 1) == 1 else f"{result['beam_size']} beams"
    screen = console()
    screen.print(table)
    say(
        screen,
        f"{audio}, {seconds:.1f} s; language {result['language']}, {search}; median of {result['runs']} alternating "
        f"run(s) after a warm-up; {LEGENDS[result['command']]}; {machine['threads']} threads of {machine['cpu']}; "
        + ", ".join(f"{name} {version}" for name, version in result["packages"].items()),
    )


def _milliseconds(seconds: float | None) -> str:
    return _number(None if seconds is None else seconds * 1e3, ".2f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
