"""`tilewhisper profile`: break down the time of a transcription, as tables, JSON and a Chrome trace."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tilewhisper.engine.commands import loading
from tilewhisper.engine.commands.files import check_separate, check_writable, write_all
from tilewhisper.engine.commands.inputs import check_repeatable
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.checkpoint.locate import Source

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.breakdown import Breakdown, Part
    from tilewhisper.engine.tuning.recording import Recording


def run(args: Namespace) -> int:
    if args.runs < 1:
        raise OptionError(f"--runs must be >= 1, got {args.runs}")
    check_writable(args.trace)
    check_writable(args.json)
    check_separate([("--trace", args.trace), ("--json", args.json)], [args.file])
    check_repeatable(args.file)
    load_policy(args.policy).with_overrides(args.backend)
    source = loading.model(args)
    if note := loading.english_only_note(args, source):
        say(console(stderr=True), note)

    from tilewhisper.engine.tuning.breakdown import breakdown
    from tilewhisper.engine.tuning.chrome_trace import chrome_trace
    from tilewhisper.engine.tuning.recording import median_recording

    recordings = _record(args, source)
    median = median_recording(recordings)
    parts = breakdown(median)
    files = {args.trace: json.dumps(chrome_trace(median)), args.json: json.dumps(parts.to_json(), indent=1)}
    try:
        _show(parts, [recording.seconds for recording in recordings])
    finally:  # written even if standard output is lost
        write_all((Path(file), f"{text}\n") for file, text in files.items() if file)
    return 0


def _record(args: Namespace, source: Source) -> "list[Recording]":
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.engine.tuning.fingerprint import machine_warning
    from tilewhisper.engine.tuning.recording import record
    from tilewhisper.engine.whisper_model import WhisperModel

    with WhisperModel(
        source, policy=args.policy, backends=args.backend, cpu_threads=args.threads, settings=settings(args)
    ) as model:
        model.check(TranscriptionOptions(args.language, args.task, audio_context=args.audio_context))
        if warning := machine_warning(model.policy):
            say(console(stderr=True), warning)
        return record(model, args.file, args.language, args.task, args.runs, args.audio_context)


def _show(found: "Breakdown", runs: Sequence[float]) -> None:
    from tilewhisper.engine.commands.tables import setting_line, summary_line

    screen, report = console(), found.report
    for table in (_stage_table(found), _encoder_table(found), _decoder_table(found)):
        screen.print(table)
        screen.print()
    say(screen, setting_line(report))
    say(screen, summary_line(report))
    spread = f" of {len(runs)} ({min(runs) * 1e3:.1f} to {max(runs) * 1e3:.1f} ms)" if len(runs) > 1 else ""
    overhead = found.spans * found.seconds_per_span
    say(
        screen,
        f"median run{spread} after a warm-up run; shares are of its total, which includes "
        f"about {overhead * 1e3:.1f} ms for recording {found.spans:,} spans",
    )


def _stage_table(found: "Breakdown") -> Table:
    table = _table("stage", "calls", "ms", "share")
    for part in found.stages:
        table.add_row(*_cells(part, found))
    table.add_row("total", "", f"{found.seconds * 1e3:,.2f}", "100.0 %", style="bold")
    return table


def _encoder_table(found: "Breakdown") -> Table:
    """A row for each role, summed over the layers."""
    table = _table("encoder", "calls", "ms", "share", "GOP/s")
    table.add_column("backend")
    for part in found.encoder:
        rate = f"{2 * part.multiply_adds / part.seconds / 1e9:,.0f}" if part.multiply_adds else ""
        table.add_row(*_cells(part, found), rate, part.backend)
    return table


def _decoder_table(found: "Breakdown") -> Table:
    """A row for each kind of work, summed over the layers."""
    table = _table(f"decoder, {found.steps} steps on {found.report.decoder.used}", "calls", "ms", "share", "ms/step")
    for part in found.decoder:
        table.add_row(*_cells(part, found), f"{part.seconds * 1e3 / found.steps:.3f}" if found.steps else "")
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _cells(part: "Part", found: "Breakdown") -> Iterator[str]:
    yield part.name
    yield f"{part.calls:,}" if part.calls else ""
    yield f"{part.seconds * 1e3:,.2f}"
    yield f"{part.seconds / found.seconds:.1%}".replace("%", " %")
