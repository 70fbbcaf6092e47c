"""Calculate what transcribing many hours takes: cores, time, cost, and the first bottleneck.

    python scripts/scale.py ../shared/data/librispeech --model base --policy int8 --hours 10000 --cores 64

Measures here, with one worker of `tilewhisper batch` on the folder's recordings, repeated to --minutes of audio: the
core seconds for a second of audio (beside `transcribe_many`), the worker's memory, the bytes of a second of audio and
of a row, and how fast one process writes rows. Memory is flat if, after a warm-up of at least 10 minutes of audio,
no quarter of the run has a median of resident memory more than 20 MB above that of the first. Everything else
is multiplication; --price is of a core for an hour, and --storage and --network are what a disk or store and a link
give in MB/s.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from tilewhisper.engine.bulk.folder import OutputFolder
from tilewhisper.engine.bulk.inputs import items_of
from tilewhisper.engine.bulk.job import BulkJob, Progress
from tilewhisper.engine.bulk.local import LocalRunner
from tilewhisper.engine.bulk.rows import Row, joined
from tilewhisper.engine.bulk.work import Item, SpanResult, WorkerSettings, whole
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.whisper_model import WhisperModel

HOUR = 3600.0
MB = 1e6
WARM_UP_SECONDS = 600.0
FLAT_MB = 20.0
"""How much the memory of a worker may rise that is called flat."""
ROWS = 2000
"""How many rows are written to measure their speed."""


@dataclass(frozen=True)
class Measured:
    """Figures of this machine."""

    audio_seconds: float
    """Of the recordings that were transcribed."""
    seconds: float
    """From the first task to the last row, without loading the model."""
    together_seconds: float
    """Of `WhisperModel.transcribe_many` on the same recordings."""
    threads: int
    worker_mb: float
    """Peak resident memory of the worker, mapped weights included."""
    quarters_mb: tuple[float, ...]
    """Median of its resident memory in each quarter of the run."""
    audio_bytes_per_second: float
    row_bytes: float
    row_audio_seconds: float
    """Of a row, on average."""
    rows_per_second: float
    """That one process writes."""

    @property
    def core_seconds(self) -> float:
        """For a second of audio, idle ones of the worker's threads included: they are reserved."""
        return self.seconds * self.threads / self.audio_seconds

    @property
    def growth_mb(self) -> float:
        """How far the worker's memory rises above that of the first quarter."""
        return max(self.quarters_mb) - self.quarters_mb[0]


@dataclass(frozen=True)
class Plan:
    """What the hours take."""

    core_hours: float
    hours: float
    cost: float
    memory_gb: float
    """Of all workers."""
    output_gb: float
    rows: float
    shares: dict[str, float]
    """Of each resource, how much of it the work takes while it runs; above 1 it is the bottleneck."""

    @property
    def bottleneck(self) -> str:
        return max(self.shares, key=lambda name: self.shares[name])


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        measured = measure(args)
    except (*USER_ERRORS, OSError) as e:
        print(f"scale: error: {e}", file=sys.stderr)
        return 2
    found = plan(measured, args)
    screen = console()
    screen.print(_table(measured, found, args))
    say(screen, f"first bottleneck: {found.bottleneck}")
    if args.json:
        write_whole(args.json, json.dumps({"measured": asdict(measured), "plan": asdict(found)}, indent=1) + "\n")
    return 0


def measure(args: argparse.Namespace) -> Measured:
    """Raises USER_ERRORS and OSError."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        given, _ = items_of([str(args.folder)])
        settings = WorkerSettings(args.model, args.policy, threads=args.threads, options={"language": args.language})
        rows: list[Row] = []
        resident: list[int] = []
        with closing(LocalRunner(settings, 1)) as runner, closing(OutputFolder(folder / "out", {})) as output:

            def note(row: Row, progress: Progress) -> None:
                rows.append(row)
                resident.append(_memory(runner, "VmRSS"))

            job = BulkJob(output, [], note)
            job.run(given, runner)  # tells how much audio there is
            seconds = sum(row.seconds for row in rows)
            if not seconds:
                raise OSError(f"{args.folder}: {rows[0].error}")
            job.run(_copies(given, folder / "warm-up", math.ceil(WARM_UP_SECONDS / seconds) - 1), runner)
            items = _copies(given, folder / "audio", max(1, round(args.minutes * 60 / seconds)))
            rows.clear()
            resident.clear()
            started = time.perf_counter()
            job.run(items, runner)
            took = time.perf_counter() - started
            peak = _memory(runner, "VmHWM")
        if failed := next((row for row in rows if row.error), None):
            raise OSError(f"{failed.path}: {failed.error}")
        audio = sum(row.seconds for row in rows)
        return Measured(
            audio_seconds=audio,
            seconds=took,
            together_seconds=_together(settings, items),
            threads=args.threads,
            worker_mb=peak / MB,
            quarters_mb=quarters([size / MB for size in resident]),
            audio_bytes_per_second=sum(Path(item.path).stat().st_size for item in given) / seconds,
            row_bytes=sum(len(json.dumps(row.to_json())) for row in rows) / len(rows),
            row_audio_seconds=audio / len(rows),
            rows_per_second=_row_rate(rows, folder / "rows"),
        )


def plan(measured: Measured, args: argparse.Namespace) -> Plan:
    """The calculation."""
    seconds = args.hours * HOUR
    core_hours = args.hours * measured.core_seconds
    hours = core_hours / args.cores
    speed = seconds / (hours * HOUR)  # seconds of audio in a second of work
    rows = seconds / measured.row_audio_seconds
    return Plan(
        core_hours=core_hours,
        hours=hours,
        cost=core_hours * args.price,
        memory_gb=measured.worker_mb * args.cores / measured.threads / 1e3,
        output_gb=rows * measured.row_bytes / 1e9,
        rows=rows,
        shares={
            "the cores": 1.0,
            "the storage": speed * measured.audio_bytes_per_second / (args.storage * MB),
            "the network": speed * measured.audio_bytes_per_second / (args.network * MB),
            "the process that writes the rows": speed / measured.row_audio_seconds / measured.rows_per_second,
        },
    )


def _copies(items: Sequence[Item], folder: Path, times: int) -> list[Item]:
    """Each recording `times` times, under names of their own."""
    folder.mkdir()
    copies = []
    for number in range(times):
        for item in items:
            copies.append(Item(str(folder / f"{number}-{Path(item.path).name}")))
            shutil.copyfile(item.path, copies[-1].path)
    return copies


def _together(settings: WorkerSettings, items: Sequence[Item]) -> float:
    """Seconds of `transcribe_many` with the same options in a process of its own, without loading the model."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_transcribe_together, (settings, [item.path for item in items]))


def _transcribe_together(settings: WorkerSettings, files: Sequence[str]) -> float:
    model = WhisperModel(settings.model, cpu_threads=settings.threads, policy=settings.policy)
    list(model.transcribe_many(files[:60], **settings.options))
    started = time.perf_counter()
    list(model.transcribe_many(files, **settings.options))
    return time.perf_counter() - started


def quarters(sizes: Sequence[float]) -> tuple[float, ...]:
    """The median of each quarter; of all where there are too few."""
    ends = [len(sizes) * quarter // 4 for quarter in range(5)]
    return tuple(statistics.median(sizes[first:last] or sizes) for first, last in itertools.pairwise(ends))


def _memory(runner: LocalRunner, field: str) -> int:
    """Bytes of the largest worker by a field of its status, on Linux."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in runner.pids]
    return 1024 * max(int(text.partition(f"{field}:")[2].split()[0]) for text in statuses)


def _row_rate(rows: Sequence[Row], folder: Path) -> float:
    """Rows a second that one process joins and writes."""
    results = [SpanResult(whole(Item(row.path), row.content), row.segments, row.language) for row in rows]
    with closing(OutputFolder(folder, {})) as output:
        started = time.perf_counter()
        for number in range(ROWS):
            result = results[number % len(results)]
            output.add(joined(result.span.item, [result]))
        return ROWS / (time.perf_counter() - started)


def _table(measured: Measured, found: Plan, args: argparse.Namespace) -> Table:
    rows = {
        f"measured: audio, with {args.model}, policy {args.policy}": f"{measured.audio_seconds / HOUR:.2f} h",
        "seconds of work for an hour of audio": f"{measured.seconds / measured.audio_seconds * HOUR:.1f}",
        "the same against transcribe_many": f"{measured.seconds / measured.together_seconds:.3f}",
        f"core hours for an hour of audio, {measured.threads} threads": f"{measured.core_seconds:.4f}",
        "a worker's peak memory": f"{measured.worker_mb:.0f} MB",
        "its memory in each quarter, after a warm-up": in_quarters(measured),
        "bytes of a second of audio, of a row": f"{measured.audio_bytes_per_second:.0f}, {measured.row_bytes:.0f}",
        "rows a second of one process": f"{measured.rows_per_second:.0f}",
        f"calculated for {args.hours:g} h: core hours": f"{found.core_hours:.1f}",
        f"hours on {args.cores} cores": f"{found.hours:.2f}",
        f"cost at {args.price:g} for a core hour": f"{found.cost:.2f}",
        "rows, output": f"{found.rows:,.0f}, {found.output_gb:.2f} GB",
        "memory of all workers": f"{found.memory_gb:.1f} GB",
        **{f"share of {name}": f"{share:.1%}" for name, share in found.shares.items()},
    }
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for title, figure in rows.items():
        table.add_row(title, figure)
    return table


def in_quarters(measured: Measured) -> str:
    """The worker's memory in words: that of each quarter, and whether it is flat."""
    sizes = ", ".join(f"{size:.0f}" for size in measured.quarters_mb)
    flat = "flat" if measured.growth_mb <= FLAT_MB else f"grows by {measured.growth_mb:.0f} MB"
    return f"{sizes} MB: {flat}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="recordings to measure with")
    parser.add_argument("--model", default="base", help="(default: %(default)s)")
    parser.add_argument("--policy", default="int8", help="(default: %(default)s)")
    parser.add_argument("--language", default="en", help="of the recordings (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the worker (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="audio to measure with (default: %(default)g)")
    parser.add_argument("--hours", type=float, default=10_000.0, help="audio to plan for (default: %(default)g)")
    parser.add_argument("--cores", type=int, default=64, help="of all machines (default: %(default)s)")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour (default: %(default)g)")
    parser.add_argument(
        "--storage", type=float, default=500.0, help="MB/s of the recordings' store (default: %(default)g)"
    )
    parser.add_argument("--network", type=float, default=1250.0, help="MB/s of the slowest link (default: %(default)g)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
