"""Check and time contenders on one product, and derive rates and ratios from the times."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from kernel_bench.contenders import BASELINE, ORACLE, Arithmetic, Contender
from kernel_bench.peaks import Peaks
from kernel_bench.products import Case, Run, Task
from kernel_bench.reading import read_of
from torch import Tensor

from tilewhisper.kernels import registry

READ = "reading"
CACHE_FILLER = 2**26
"""Number of float32 values that are read to evict the weights from the caches: 256 MiB."""


@dataclass(frozen=True)
class Outcome:
    """One contender on one product: either times, or the reason for having none in `why_not`."""

    backend: str
    arithmetic: Arithmetic
    why_not: str = ""
    error: float | None = None
    """Relative to the oracle, in the Frobenius norm."""
    seconds: tuple[float, ...] = ()
    """Seconds of each round."""
    instruction_set: str = ""
    """Where one was asked for."""
    digest: str = ""
    """Of the result: equal where all bits are."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Outcomes:
    """All contenders on one product."""

    of_contenders: tuple[Outcome, ...]
    read_gb_s: float | None
    """Median GB/s of reading the weight as bytes, in alternation with the contenders; None where not measured."""


@dataclass(frozen=True)
class Figures:
    """Rates and ratios of one outcome; None is unknown."""

    median_ms: float
    min_ms: float
    max_ms: float
    gops: float
    ratio: float | None
    """torch's median / own median: above 1 is faster than torch."""
    of_peak: float | None
    """Fraction of the peak of the instructions used."""
    bytes: float
    """Bytes read from memory and written to it."""
    of_floor: float | None
    """Decoder products: median / time to read as many bytes. 1 is as fast as memory."""
    operations_per_byte: float


@torch.inference_mode()
def measure(case: Case, contenders: Sequence[Contender], rounds: int) -> Outcomes:
    """Compare every contender with the oracle, then time the correct contenders in alternation."""
    task = Task.of(case)
    expected = task.on(registry.create(ORACLE))().double()
    outcomes: list[Outcome] = []
    runs: dict[str, Run] = {}
    for contender in contenders:
        run = contender.ready(task)
        if isinstance(run, str):
            outcomes.append(Outcome(contender.name, contender.arithmetic, run))
            continue
        y = run()
        error, bound = _relative_error(y, expected), contender.arithmetic.bound
        correct = error <= bound  # False for a NaN
        if correct:
            runs[contender.name] = run
        reason = "" if correct else f"wrong: error above {bound:g}"
        outcomes.append(
            Outcome(
                contender.name,
                contender.arithmetic,
                reason,
                error,
                instruction_set=contender.instruction_set,
                digest=hashlib.sha256(y.contiguous().numpy().tobytes()).hexdigest()[:12],
            )
        )
    read = read_of(task) if case.is_decoding else None
    seconds = _time_alternating(runs | ({READ: read} if read else {}), rounds, empty_caches=case.is_decoding)
    read_gb_s = case.shape.k * case.shape.n / statistics.median(seconds[READ]) / 1e9 if read else None
    timed = tuple(replace(outcome, seconds=seconds.get(outcome.backend, ())) for outcome in outcomes)
    return Outcomes(timed, read_gb_s)


def figures(case: Case, outcome: Outcome, outcomes: Outcomes, peaks: Peaks) -> Figures | None:
    """Derive the figures of one of the outcomes; None for an outcome without times."""
    if not outcome.seconds:
        return None
    baseline = next(other for other in outcomes.of_contenders if other.backend == BASELINE)
    moved = case.bytes(outcome.arithmetic.weight_bytes)
    gops, peak = case.operations / outcome.median / 1e9, peaks.gops.get(outcome.arithmetic.instructions)
    return Figures(
        median_ms=outcome.median * 1e3,
        min_ms=min(outcome.seconds) * 1e3,
        max_ms=max(outcome.seconds) * 1e3,
        gops=gops,
        ratio=baseline.median / outcome.median if baseline.seconds else None,
        of_peak=gops / peak if peak else None,
        bytes=moved,
        of_floor=outcome.median * outcomes.read_gb_s * 1e9 / moved if outcomes.read_gb_s else None,
        operations_per_byte=case.operations / moved,
    )


def _time_alternating(runs: Mapping[str, Run], rounds: int, empty_caches: bool) -> dict[str, tuple[float, ...]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    filler = torch.ones(CACHE_FILLER if empty_caches else 0)
    for _ in range(rounds):
        for name, run in runs.items():
            filler.sum()
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: tuple(each) for name, each in seconds.items()}


def _relative_error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).norm() / expected.norm())
