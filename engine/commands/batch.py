"""`tilewhisper batch`: transcribe many recordings into rows, with workers here or on a Ray cluster."""

import os
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from tilewhisper.engine.bulk.folder import OutputFolder, Plan
from tilewhisper.engine.bulk.formats import FILES, JSONL, PARQUET, RowFormat, TranscriptFiles
from tilewhisper.engine.bulk.inputs import items_of
from tilewhisper.engine.bulk.job import BulkJob, Progress
from tilewhisper.engine.bulk.local import LocalRunner
from tilewhisper.engine.bulk.on_ray import RayRunner
from tilewhisper.engine.bulk.parquet import ParquetFiles
from tilewhisper.engine.bulk.rows import Row
from tilewhisper.engine.bulk.work import Item, WorkerSettings
from tilewhisper.engine.commands import flags, loading
from tilewhisper.engine.commands.npu import settings as npu_settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.commands.transcribe_run import INCOMPLETE
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.checkpoint.locate import Source

LAYOUT = 1
"""Of the rows: rows of another layout are not continued."""
HOUR = 3600.0
LINE_SECONDS = 10.0
RAY_THREADS = 2
"""Of a worker, unless it is said."""


def run(args: Namespace) -> int:
    """Raises USER_ERRORS that concern all items; the error of one item is in its row."""
    out, err = console(), console(stderr=True)
    options, layout = flags.options(args), flags.subtitle_options(args)
    load_policy(args.policy).with_overrides(args.backend)
    items, notes = items_of(args.inputs)
    for note in notes:
        say(err, f"tilewhisper: note: {note}")
    source = loading.model(_with_languages(args, items))
    made_with = {
        "layout": LAYOUT,
        "model": source.name,
        "weights": source.origin,
        "policy": args.policy,
        "backends": args.backend,
        "options": {name: repr(value) for name, value in options.items()},
    }
    output = Path(args.output)
    formats = _formats(output, items, args.format or [JSONL], layout)
    with closing(OutputFolder(output, made_with)) as folder:
        plan = folder.unfinished(items, retry_errors=bool(args.retry_errors))
        with _Screen(plan, err) as screen:
            job = BulkJob(folder, formats, screen.show)
            if plan.items:
                with closing(_runner(args, source, options)) as runner:
                    job.run(plan.items, runner)
            job.finish()
        errors = sum(1 for row in folder.rows() if row.error)
    say(out, _summary(len(items), plan.finished, errors, job.progress, output))
    return INCOMPLETE if errors else 0


def _with_languages(args: Namespace, items: Sequence[Item]) -> Namespace:
    """The flags, with a language that the manifest asks for: the default model must know it."""
    language = next((item.language for item in items if item.language), None)
    task = next((item.task for item in items if item.task), None)
    return Namespace(**{"language": language, "task": task, **vars(args)})


def _formats(output: Path, items: Sequence[Item], names: Sequence[str], layout: SubtitleOptions) -> list[RowFormat]:
    formats: list[RowFormat] = [ParquetFiles(output)] if PARQUET in names else []
    files = list(WRITERS) if FILES in names else [name for name in WRITERS if name in names and name != JSONL]
    return [*formats, TranscriptFiles(output, items, files, layout)] if files else formats


def _runner(args: Namespace, source: Source, options: dict[str, Any]) -> LocalRunner | RayRunner:
    npu = npu_settings(args)
    workers = args.workers or (0 if args.address else 1)
    threads = args.threads or (RAY_THREADS if args.address else max(1, (os.cpu_count() or 1) // workers))
    settings = WorkerSettings(
        # Each node of a cluster finds a name for itself.
        model=_everywhere(args.model or source.name) if args.address else source,
        policy=args.policy,
        backends=args.backend,
        npu={"npu": npu.npu, "npu_kernels": npu.npu_kernels, "npu_fault": npu.npu_fault},
        options=options,
        threads=threads,
        batch_size=args.batch_size,
    )
    return RayRunner(settings, workers, args.address) if args.address else LocalRunner(settings, workers)


def _everywhere(model: str) -> str:
    """A name as it is, a path as an absolute one."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _summary(items: int, finished: int, errors: int, progress: Progress, output: Path) -> str:
    rows = f"{items} rows in {output}: {finished} done before, {progress.rows} now"
    if errors:
        rows += f"; {errors} of the folder's rows are errors (their field `error` says why)"
    return f"{rows}; {_figures(progress)}" if progress.audio_seconds else rows


def _figures(progress: Progress) -> str:
    """What the work of this run cost."""
    hours, took = progress.audio_seconds / HOUR, progress.seconds / HOUR
    rtf = f"RTF {took / hours:.4f}" if hours else "no audio yet"
    return f"{hours:.2f} h of audio in {took:.3f} h, {rtf}, {progress.cpu_seconds / HOUR:.3f} core hours"


class _Screen:
    """Shows finished rows: a bar on a terminal, else a line every few seconds."""

    def __init__(self, plan: Plan, err: Console) -> None:
        self._plan, self._err = plan, err
        self._shown = time.monotonic()
        self._bar = Bar(
            *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}")),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task("transcribing", total=len(plan.items), figures="")

    def show(self, row: Row, progress: Progress) -> None:
        if row.error:
            say(
                self._err, f"tilewhisper: {row.path}: {row.error}".replace(f"{row.path}: {row.path}: ", f"{row.path}: ")
            )
        text = f"{progress.rows} of {len(self._plan.items)} rows; {_figures(progress)}{self._left(progress)}"
        self._bar.update(self._task, completed=progress.rows, figures=text)
        if not self._err.is_terminal and time.monotonic() - self._shown > LINE_SECONDS:
            say(self._err, text)
            self._shown = time.monotonic()

    def _left(self, progress: Progress) -> str:
        """About the hours of audio that are left: as many for a byte as so far."""
        if not progress.bytes:
            return ""
        left = progress.audio_seconds * max(0, self._plan.size - progress.bytes) / progress.bytes
        return f"; some {left / HOUR:.2f} h left"

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
