"""The cost model beside published times: the error of every comparable row, and how many figures were fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tilewhisper.kernels.xdna.cost import ArrayProfile
from tilewhisper.kernels.xdna.profiles import ARRAY_PROFILES
from tilewhisper.kernels.xdna.published import PUBLISHED, Published

MEDIAN_TARGET, WORST_TARGET = 0.15, 0.40
"""Errors that the model should stay within, over the rows of a profile."""


@dataclass(frozen=True)
class Comparison:
    """A published time and its prediction, in seconds."""

    profile: str
    row: Published
    predicted: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.row.seconds

    @property
    def error(self) -> float:
        return abs(self.ratio - 1)


@dataclass(frozen=True)
class Errors:
    """The errors of some comparisons, without rows that are themselves a figure of the profile."""

    name: str
    rows: int
    fitted_figures: int
    """Figures of the profile that were fitted to these rows; 0 for rows that were held out."""
    median: float
    worst: float


def compare(profile: ArrayProfile, rows: Sequence[Published] = PUBLISHED) -> tuple[Comparison, ...]:
    """Every row that this profile predicts."""
    return tuple(Comparison(profile.name, row, predicted(row, profile)) for row in rows if profile.name in row.profiles)


def predicted(row: Published, profile: ArrayProfile) -> float:
    """The predicted time of a row, in seconds."""
    return sum(profile.device_cost(load).device for load in row.loads)


def errors(name: str, comparisons: Sequence[Comparison], fitted_figures: int = 0) -> Errors | None:
    """None if every row is a given figure."""
    found = [comparison.error for comparison in comparisons if comparison.row.use != "given"]
    return Errors(name, len(found), fitted_figures, median(found), max(found)) if found else None


def all_errors(profiles: Sequence[ArrayProfile] = ARRAY_PROFILES) -> tuple[Errors, ...]:
    """For each profile its fitted rows, its held-out rows, and all of them; then all rows of all profiles.

    A row that two profiles predict alike counts once in the last.
    """
    found: list[Errors | None] = []
    once: dict[Published, Comparison] = {}
    for profile in profiles:
        rows = compare(profile)
        once.update({comparison.row: comparison for comparison in rows})
        for use in ("fitted", "held out"):
            figures = fitted_figures(profile) if use == "fitted" else 0
            found.append(errors(f"{profile.name}, {use}", [c for c in rows if c.row.use == use], figures))
        found.append(errors(f"{profile.name}, all", rows, fitted_figures(profile)))
    if len(profiles) > 1:
        figures = len({figure for profile in profiles for figure in profile.figures if figure.basis == "fitted"})
        found.append(errors("all", list(once.values()), figures))
    return tuple(entry for entry in found if entry)


def fitted_figures(profile: ArrayProfile) -> int:
    return sum(figure.basis == "fitted" for figure in profile.figures)
