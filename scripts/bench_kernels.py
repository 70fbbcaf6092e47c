"""Time every backend on the products of Whisper's sizes, against torch float32 and torch's dynamic int8.

    python scripts/bench_kernels.py                                   # tiny and base, every backend that runs here
    python scripts/bench_kernels.py --all --backend int16 --json kernels.json --picture roofline.png
    python scripts/bench_kernels.py --shape 1499,512,2048 --rounds 50
    python scripts/bench_kernels.py --backend w8a8 --set avx512 --set avx_vnni --set avx2

First, each result is compared with the float64 oracle: a backend whose error exceeds its bound is reported as wrong and
not timed. Then all alternate, so that a change of clock speed affects all alike. Ratios are against torch float32.
Inputs are normal random numbers. Decoder products start with empty caches, since a decode step streams all its weights;
their floor is the time to read as many bytes, measured in alternation with them. The peaks of the instructions and of
memory bandwidth are measured before and after the products.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from kernel_bench import instruction_sets
from kernel_bench.contenders import contenders
from kernel_bench.measurement import Figures, Outcome, figures, measure
from kernel_bench.peaks import Peaks
from kernel_bench.products import Case, shape_table
from rich.table import Table

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.report import machine
from tilewhisper.kernels.base import ProductShape
from tilewhisper.models.checkpoint.catalog import SIZES, official

DEFAULT_SIZES = ("tiny", "base")

Results = Sequence[tuple[Case, Sequence[tuple[Outcome, Figures | None]]]]


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
    if args.threads < 0:
        raise OptionError(f"--threads must be >= 0, got {args.threads}")
    if args.rounds < 1:
        raise OptionError(f"--rounds must be >= 1, got {args.rounds}")
    if args.picture:
        from kernel_bench.roofline import Point, draw
    if args.threads:
        torch.set_num_threads(args.threads)
    cases = _cases(args)
    with ExitStack() as stack:
        if args.set:
            instruction_sets.load(args.set)
        found, left_out = contenders(args.backend, args.set, stack)
        before = Peaks.measured(args.set)
        measured = [(case, measure(case, found, args.rounds)) for case in cases]
        peaks = before.or_better(Peaks.measured(args.set))
    results = [
        (case, [(outcome, figures(case, outcome, outcomes, peaks)) for outcome in outcomes.of_contenders])
        for case, outcomes in measured
    ]
    setting = f"{torch.get_num_threads()} threads of {machine().cpu}, torch {torch.__version__}"
    screen = console()
    screen.print(_table(results))
    say(screen, f"{setting}; {args.rounds} alternating rounds; {peaks}")
    for line in (*_decoding_lines(results), *(f"left out: {name}: {reason}" for name, reason in left_out.items())):
        say(screen, line)
    for case, rows in results:
        for line in instruction_sets.comparisons([outcome for outcome, _ in rows]):
            say(screen, f"{case.role} {case.shape}: {line}")
    timed = [(case, outcome, rates) for case, rows in results for outcome, rates in rows]
    if args.json:
        about = {"machine": asdict(machine()), "rounds": args.rounds, "peaks": asdict(peaks), "left_out": left_out}
        write_whole(args.json, json.dumps(about | {"rows": [_json(*row) for row in timed]}, indent=1) + "\n")
    if args.picture:
        points = [Point(outcome.backend, f.operations_per_byte, f.gops) for _, outcome, f in timed if f]
        draw(args.picture, setting, peaks.gops, peaks.read_gb_s, points)
    return 0


def _cases(args: argparse.Namespace) -> list[Case]:
    """The products of --shape, then those of the sizes. Raises OptionError for an unknown size."""
    own = [Case((), "linear", "linear", shape) for shape in args.shape]
    names = tuple(SIZES) if args.all else args.size or (() if own else DEFAULT_SIZES)
    for name in names:
        if official(name) is None:
            raise OptionError(f"unknown Whisper size {name!r}; the sizes are {', '.join(SIZES)}")
    return own + shape_table(size for name in names if (size := official(name)))


def _table(results: Results) -> Table:
    table = Table("product", "shape", "sizes", "backend", box=None, pad_edge=False)
    for heading in ("error", "ms median", "min", "max", "GOP/s", "ratio", "of peak", "x floor"):
        table.add_column(heading, justify="right")
    for case, rows in results:
        names = (case.role, str(case.shape), ", ".join(case.sizes))
        for outcome, rates in rows:
            error = "" if outcome.error is None else f"{outcome.error:.1e}"
            table.add_row(*names, outcome.backend, error, *(_cells(case, rates) if rates else (outcome.why_not,)))
            names = ("", "", "")
        table.add_section()
    return table


def _cells(case: Case, rates: Figures) -> Iterator[str]:
    yield from (f"{ms:.3f}" for ms in (rates.median_ms, rates.min_ms, rates.max_ms))
    yield f"{rates.gops:.1f}"
    yield "-" if rates.ratio is None else f"{rates.ratio:.2f}"
    yield "unknown" if rates.of_peak is None else f"{rates.of_peak:.0%}"
    if case.is_decoding:  # the encoder's products reuse each byte many times
        yield "unknown" if rates.of_floor is None else f"{rates.of_floor:.2f}"


def _decoding_lines(results: Results) -> Iterator[str]:
    """Compare products with one token against memory bandwidth, which bounds them, instead of arithmetic."""
    for case, rows in results:
        for outcome, rates in rows:
            if rates and rates.of_floor and case.is_decoding and case.shape.m == 1:
                yield (
                    f"{outcome.backend}, {case.role} of {', '.join(case.sizes)}: {rates.bytes / 1e6:.1f} MB in "
                    f"{rates.median_ms:.2f} ms, {rates.of_floor:.2f} x the time to read them"
                )


def _json(case: Case, outcome: Outcome, rates: Figures | None) -> dict[str, Any]:
    product = {**asdict(case), "operations": case.operations}
    return {"product": product, **asdict(outcome), **(asdict(rates) if rates else {})}


def _shape(text: str) -> ProductShape:
    m, k, n = (int(part) for part in text.split(","))
    if min(m, k, n) < 1:
        raise ValueError(text)
    return ProductShape(1, m, k, n)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_sizes = " and ".join(DEFAULT_SIZES)
    parser.add_argument("--size", action="append", help=f"Whisper size; repeatable (default: {default_sizes})")
    parser.add_argument("--all", action="store_true", help="every Whisper size")
    parser.add_argument(
        "--shape", action="append", default=[], type=_shape, metavar="M,K,N", help="shape of a linear layer; repeatable"
    )
    parser.add_argument(
        "--backend", action="append", help="backend to time besides torch; repeatable (default: all that run here)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        help="instruction set of the native backends, such as avx2; repeatable: each is compared with the last "
        f"(default: the fastest only). {instruction_sets.EVEX} is avx_vnni for a processor that has only AVX-512",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is torch's default (default: 0)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: 15)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw a roofline (needs tilewhisper[bench])")
    return parser


if __name__ == "__main__":
    sys.exit(main())
