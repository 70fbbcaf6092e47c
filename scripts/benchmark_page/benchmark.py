"""What a benchmark of docs/benchmarks.md is: a command, the figures taken from its JSON, the columns of its table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark_page.figures import Figures


@dataclass(frozen=True)
class Column:
    """`form` is a format specification for numbers; None prints strings as they are."""

    key: str
    heading: str
    form: str | None = None


MODEL, WER = Column("model", "model"), Column("word_error_rate", "WER %", ".2f")
NOTE = Column("note", "")
"""Why a row has no figures."""


def with_spread(key: str, heading: str, form: str) -> tuple[Column, Column, Column]:
    """The columns of a median and of its spread, the least and the largest value."""
    return Column(key, heading, form), Column(f"{key}_min", "min", form), Column(f"{key}_max", "max", form)


@dataclass(frozen=True)
class Benchmark:
    """One section of the page."""

    name: str
    title: str
    about: str
    arguments: tuple[str, ...]
    """The command as typed in the root of the repository; `{data}` stands for the folder of shared recordings."""
    columns: tuple[Column, ...]
    figures: Callable[[Any], list[Figures]]
    """From the parsed JSON of the command to table rows."""
    statuses: tuple[int, ...] = (0,)
    """Exit statuses of a complete run."""
    quick: tuple[str, ...] = ()
    """The command of `compare.py all --quick`; a benchmark without one is no part of `compare.py all`."""
    time: tuple[str, str, str] | None = None
    """The keys of the columns with its time: median, least and largest."""
    threads: int = 2
    """CPU threads of every contender."""

    def command(self, data: str, quick: bool = False) -> list[str]:
        return [argument.format(data=data) for argument in (self.quick if quick else self.arguments)]

    def identity(self, row: Figures) -> tuple[str, ...]:
        """The row's words, which are the same in every run; not the note."""
        keys = (column.key for column in self.columns if column.form is None and column.key != NOTE.key)
        return tuple(str(row[key]) for key in keys if row.get(key) is not None)
