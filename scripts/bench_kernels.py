"""Speed of the backends on the products of Whisper's sizes, beside torch float32 and torch's own dynamic int8.

    python scripts/bench_kernels.py                                   # tiny and base, every backend that runs here
    python scripts/bench_kernels.py --all --backend int16 --json kernels.json --picture roofline.png
    python scripts/bench_kernels.py --shape 1499,512,2048 --rounds 50

A result is held against the float64 oracle first: one beyond its bound is called wrong and never timed. Then all take
turns, so that a machine that slows down slows them alike; ratios are against torch float32. Inputs are normal random
numbers. Products of the decoder start with caches emptied: a step of it streams all its weights. Its floor is the time
that reading as many bytes takes, in turn with the products. The peaks of the instructions and of reading memory are
measured in the same run, before and after.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from kernel_bench.contenders import BASELINE, ORACLE, Arithmetic, Contender, contenders
from kernel_bench.peaks import Peaks
from kernel_bench.products import Case, Run, Task, shape_table
from kernel_bench.reading import read_of
from rich.table import Table
from torch import Tensor

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.report import machine
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import ProductShape
from tilewhisper.models.checkpoint.catalog import SIZES, official

DEFAULT_SIZES = ("tiny", "base")
READ = "reading"
BEYOND_CACHES = 2**26
"""float32 numbers that are read to empty the caches: 256 MiB."""


@dataclass(frozen=True)
class Outcome:
    """One contender at one case. There are seconds unless `why_not` says why."""

    backend: str
    arithmetic: Arithmetic
    why_not: str = ""
    error: float | None = None
    """Relative to the oracle, in the Frobenius norm."""
    seconds: tuple[float, ...] = ()
    """Of each round."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Outcomes:
    """All of one case."""

    of_contenders: tuple[Outcome, ...]
    read_gb_s: float | None
    """Median of reading the weight's entries as bytes in turn with the contenders; None where that is not measured."""


@dataclass(frozen=True)
class Figures:
    """What an outcome's seconds come to; None is unknown."""

    median_ms: float
    min_ms: float
    max_ms: float
    gops: float
    ratio: float | None
    """torch's median over this one's: above 1 is faster than torch."""
    of_peak: float | None
    """Of the peak of the instructions used."""
    bytes: int
    """That must come from memory or go there."""
    of_floor: float | None
    """Of the decoder: median over the median time to read that many bytes. 1 is as fast as memory."""
    operations_per_byte: float


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except ModuleNotFoundError as e:
        print(f"bench_kernels: error: --picture needs {e.name}: pip install 'tilewhisper[bench]'", file=sys.stderr)
    except (*USER_ERRORS, OSError) as e:
        print(f"bench_kernels: error: {e}", file=sys.stderr)
    return 2


def run(args: argparse.Namespace) -> int:
    if args.threads < 0 or args.rounds < 1:
        raise OptionError("--threads must not be negative, and --rounds at least 1")
    if args.picture:
        from kernel_bench.roofline import Point, draw
    if args.threads:
        torch.set_num_threads(args.threads)
    cases = _cases(args)
    with ExitStack() as stack:
        found, left_out = contenders(args.backend, stack)
        before = Peaks.measured()
        outcomes = [measure(case, found, args.rounds) for case in cases]
        peaks = before.or_better(Peaks.measured())
    results = [
        (case, [(one, _figures(case, one, those, peaks)) for one in those.of_contenders])
        for case, those in zip(cases, outcomes, strict=True)
    ]
    setting = f"{torch.get_num_threads()} threads of {machine().cpu}, torch {torch.__version__}"
    screen = console()
    screen.print(_table(results))
    say(screen, f"{setting}; {args.rounds} rounds in turn; {peaks}")
    for line in (*_decoding_lines(results), *(f"left out: {name}: {why}" for name, why in left_out.items())):
        say(screen, line)
    if args.json:
        run_of = {"machine": asdict(machine()), "rounds": args.rounds, "peaks": asdict(peaks), "left_out": left_out}
        rows = [_json(case, *row) for case, those in results for row in those]
        args.json.write_text(json.dumps(run_of | {"rows": rows}, indent=1) + "\n")
    if args.picture:
        points = [Point(one.backend, f.operations_per_byte, f.gops) for _, those in results for one, f in those if f]
        draw(args.picture, setting, peaks.gops, peaks.read_gb_s, points)
    return 0


Results = Sequence[tuple[Case, Sequence[tuple[Outcome, Figures | None]]]]


@torch.inference_mode()
def measure(case: Case, found: Sequence[Contender], rounds: int) -> Outcomes:
    """Check every contender, then time those that are right, in turn."""
    task = Task.of(case)
    expected = task.on(registry.create(ORACLE))().double()
    outcomes: list[Outcome] = []
    runs: dict[str, Run] = {}
    for one in found:
        ready = one.ready(task)
        if isinstance(ready, str):
            outcomes.append(Outcome(one.name, one.arithmetic, ready))
            continue
        error, bound = _relative_error(ready(), expected), one.arithmetic.bound
        right = error <= bound  # which a NaN is not
        if right:
            runs[one.name] = ready
        outcomes.append(Outcome(one.name, one.arithmetic, "" if right else f"wrong: beyond {bound:g}", error))
    read = read_of(task) if case.is_decoding else None
    seconds = _in_turn(runs | ({READ: read} if read else {}), rounds, empty_caches=case.is_decoding)
    gb_s = case.shape.k * case.shape.n / statistics.median(seconds[READ]) / 1e9 if read else None
    return Outcomes(tuple(replace(one, seconds=seconds.get(one.backend, ())) for one in outcomes), gb_s)


def _in_turn(runs: Mapping[str, Run], rounds: int, empty_caches: bool) -> dict[str, tuple[float, ...]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    filler = torch.ones(BEYOND_CACHES if empty_caches else 0)
    for _ in range(rounds):
        for name, run in runs.items():
            filler.sum()
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: tuple(each) for name, each in seconds.items()}


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _figures(case: Case, one: Outcome, all_of_case: Outcomes, peaks: Peaks) -> Figures | None:
    if not one.seconds:
        return None
    baseline = next(other for other in all_of_case.of_contenders if other.backend == BASELINE)
    moved = case.bytes(one.arithmetic.weight_bytes)
    gops, peak = case.operations / one.median / 1e9, peaks.gops.get(one.arithmetic.instructions)
    return Figures(
        median_ms=one.median * 1e3,
        min_ms=min(one.seconds) * 1e3,
        max_ms=max(one.seconds) * 1e3,
        gops=gops,
        ratio=baseline.median / one.median if baseline.seconds else None,
        of_peak=gops / peak if peak else None,
        bytes=moved,
        of_floor=one.median * all_of_case.read_gb_s * 1e9 / moved if all_of_case.read_gb_s else None,
        operations_per_byte=case.operations / moved,
    )


def _cases(args: argparse.Namespace) -> list[Case]:
    """The user's own shapes, then the sizes'. Raises OptionError for a size that is none."""
    own = [Case((), "linear", "linear", shape) for shape in args.shape]
    names = tuple(SIZES) if args.all else args.size or (() if own else DEFAULT_SIZES)
    for name in names:
        if official(name) is None:
            raise OptionError(f"no Whisper size is called {name!r}; the sizes are {', '.join(SIZES)}")
    return own + shape_table(size for name in names if (size := official(name)))


def _table(results: Results) -> Table:
    table = Table("product", "shape", "sizes", "backend", box=None, pad_edge=False)
    for heading in ("error", "ms median", "min", "max", "GOP/s", "ratio", "of peak", "x floor"):
        table.add_column(heading, justify="right")
    for case, rows in results:
        names = (case.role, str(case.shape), ", ".join(case.sizes))
        for one, figures in rows:
            error = "" if one.error is None else f"{one.error:.1e}"
            table.add_row(*names, one.backend, error, *(_cells(case, figures) if figures else (one.why_not,)))
            names = ("", "", "")
        table.add_section()
    return table


def _cells(case: Case, figures: Figures) -> Iterator[str]:
    yield from (f"{ms:.3f}" for ms in (figures.median_ms, figures.min_ms, figures.max_ms))
    yield f"{figures.gops:.1f}"
    yield "-" if figures.ratio is None else f"{figures.ratio:.2f}"
    yield "unknown" if figures.of_peak is None else f"{figures.of_peak:.0%}"
    if case.is_decoding:  # the others reuse what they read
        yield "unknown" if figures.of_floor is None else f"{figures.of_floor:.2f}"


def _decoding_lines(results: Results) -> Iterator[str]:
    """Products with one token stand against memory, not against arithmetic."""
    for case, rows in results:
        for one, figures in rows:
            if figures and figures.of_floor and case.is_decoding and case.shape.m == 1:
                yield (
                    f"{one.backend}, {case.role} of {', '.join(case.sizes)}: {figures.bytes / 1e6:.1f} MB in "
                    f"{figures.median_ms:.2f} ms, {figures.of_floor:.2f} x the time to read them"
                )


def _json(case: Case, one: Outcome, figures: Figures | None) -> dict[str, Any]:
    return {
        "product": {**asdict(case), "operations": case.operations},
        **asdict(one),
        **(asdict(figures) if figures else {}),
    }


def _shape(text: str) -> ProductShape:
    m, k, n = (int(part) for part in text.split(","))
    if min(m, k, n) < 1:
        raise ValueError(text)
    return ProductShape(1, m, k, n)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", help=f"repeatable (default: {' and '.join(DEFAULT_SIZES)})")
    parser.add_argument("--all", action="store_true", help="every size")
    parser.add_argument("--shape", action="append", default=[], type=_shape, metavar="M,K,N", help="a linear layer")
    parser.add_argument("--backend", action="append", help="repeatable, beside torch (default: all that run here)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as many as torch takes)")
    parser.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw a roofline (needs tilewhisper[bench])")
    return parser


if __name__ == "__main__":
    sys.exit(main())
