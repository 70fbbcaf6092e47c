"""Compare the times of two runs of a benchmark: slow-downs since the last one, and spreads that do not overlap."""

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
    """A line for each row whose median has become more than 10 % slower."""
    if before is None:
        return
    earlier = times(benchmark, before)
    for row, (median, _, _) in times(benchmark, result).items():
        if row in earlier and median > SLOW_DOWN * earlier[row][0]:
            change = median / earlier[row][0] - 1
            yield f"{benchmark.name}, {', '.join(row)}: {change:+.0%} in time since commit {before.commit}"


def disagreements(
    benchmarks: Mapping[str, Benchmark], one: Mapping[str, Result], other: Mapping[str, Result]
) -> Iterator[str]:
    """A line for each row of both runs whose spreads do not overlap."""
    for name in one.keys() & other.keys() & benchmarks.keys():
        theirs = times(benchmarks[name], other[name])
        for row, (_, least, largest) in times(benchmarks[name], one[name]).items():
            if row in theirs and not (least <= theirs[row][2] and theirs[row][1] <= largest):
                ours, others = f"{least:.4g} to {largest:.4g}", f"{theirs[row][1]:.4g} to {theirs[row][2]:.4g}"
                yield f"{name}, {', '.join(row)}: {ours} here, {others} there"
