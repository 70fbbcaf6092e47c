"""Compare the times of two runs of a benchmark: slow-downs since the last one, and spreads that do not overlap.

Times are taken relative to those of the other engines, which run in alternation and have not changed.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping

from benchmark_page.benchmark import Benchmark
from benchmark_page.results import Result

SLOW_DOWN = 1.10
"""Times of the last run's median, above which a row has become slower."""
Times = dict[tuple[str, ...], tuple[float, float, float]]


def times(benchmark: Benchmark, result: Result) -> Times:
    """(median, least, largest) of each row that has a time, by its words."""
    if benchmark.time is None:
        return {}
    found: Times = {}
    for row in result.rows:
        median, least, largest = (row.get(key) for key in benchmark.time)
        if median is not None and least is not None and largest is not None:
            found[benchmark.identity(row)] = (median, least, largest)
    return found


def last(history: Iterable[Result], result: Result) -> Result | None:
    """The latest earlier run of the same command on the same processor with as many threads."""

    def setting(one: Result) -> tuple[str, str, str, int]:
        return one.benchmark, one.command, one.machine, one.threads

    same = [one for one in history if setting(one) == setting(result) and one.date < result.date]
    return max(same, key=lambda one: one.date, default=None)


def slow_downs(benchmark: Benchmark, result: Result, before: Result | None) -> Iterator[str]:
    """A line for each row whose median has become more than 10 % slower beside the other engines'."""
    if before is None:
        return
    now, earlier = times(benchmark, result), times(benchmark, before)
    pace = _pace(now, earlier)
    for row, (median, _, _) in now.items():
        if row in earlier and median > SLOW_DOWN * pace * earlier[row][0]:
            change = median / (pace * earlier[row][0]) - 1
            yield f"{benchmark.name}, {', '.join(row)}: {change:+.0%} in time since commit {before.commit}"


def disagreements(
    benchmarks: Mapping[str, Benchmark], one: Mapping[str, Result], other: Mapping[str, Result]
) -> Iterator[str]:
    """A line for each row of both runs whose spreads do not overlap, in times of the other run's machine."""
    for name in one.keys() & other.keys() & benchmarks.keys():
        ours, theirs = (times(benchmarks[name], result[name]) for result in (one, other))
        pace = _pace(ours, theirs)
        for row, (_, least, largest) in ours.items():
            least, largest = least / pace, largest / pace
            if row in theirs and not (least <= theirs[row][2] and theirs[row][1] <= largest):
                here, there = f"{least:.4g} to {largest:.4g}", f"{theirs[row][1]:.4g} to {theirs[row][2]:.4g}"
                yield f"{name}, {', '.join(row)}: {here} here, {there} there"


def _pace(one: Times, other: Times) -> float:
    """How much longer the other engines took: a machine with neighbours is up to a fifth slower minutes later, for all.
    1 where no other engine is in both."""
    ratios = [one[row][0] / other[row][0] for row in one.keys() & other.keys() if not _is_ours(row)]
    return statistics.median(ratios) if ratios else 1.0


def _is_ours(row: tuple[str, ...]) -> bool:
    return any(word.startswith("tilewhisper") for word in row)
