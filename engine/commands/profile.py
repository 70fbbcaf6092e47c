"""`tilewhisper profile`: where the time of a transcription goes, as tables, JSON and a Chrome trace."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.audio.reader import check_file
from tilewhisper.models.checkpoint.locate import locate

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.profile import Breakdown, Part, Recording


def run(args: Namespace) -> int:
    if args.runs < 1:
        raise OptionError(f"--runs must be at least 1, not {args.runs}")
    check_writable(args.trace)
    check_writable(args.json)
    check_file(args.file)
    load_policy(args.policy).with_overrides(args.backend)
    locate(args.model)

    from tilewhisper.engine.tuning import profile

    recordings = _record(args)
    chosen = profile.median(recordings)
    found = profile.breakdown(chosen)
    _show(found, [recording.seconds for recording in recordings])
    if args.trace:
        write(Path(args.trace), json.dumps(profile.chrome_trace(chosen)) + "\n")
    if args.json:
        write(Path(args.json), json.dumps(found.to_json(), indent=1) + "\n")
    return 0


def _record(args: Namespace) -> "list[Recording]":
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.engine.tuning import profile
    from tilewhisper.engine.tuning.fingerprint import other_machine
    from tilewhisper.engine.whisper_model import WhisperModel

    with WhisperModel(
        args.model, policy=args.policy, backends=args.backend, cpu_threads=args.threads, settings=settings(args)
    ) as model:
        model.check(TranscriptionOptions(args.language, args.task, audio_context=args.audio_context))
        if word := other_machine(model.policy):
            say(console(stderr=True), word)
        return profile.record(model, args.file, args.language, args.task, args.runs, args.audio_context)


def _show(found: "Breakdown", runs: Sequence[float]) -> None:
    from tilewhisper.engine.commands.tables import setting_line, summary_line

    screen, report = console(), found.report
    for table in (_stage_table(found), _encoder_table(found), _decoder_table(found)):
        screen.print(table)
        screen.print()
    say(screen, setting_line(report))
    say(screen, summary_line(report))
    spread = f" of {len(runs)} ({min(runs) * 1e3:.1f} to {max(runs) * 1e3:.1f} ms)" if len(runs) > 1 else ""
    cost = found.spans * found.span_seconds
    say(
        screen,
        f"the median run{spread} after one that warmed up; shares are of its total; recording took about "
        f"{cost * 1e3:.1f} ms of it ({found.spans:,} spans)",
    )


def _stage_table(found: "Breakdown") -> Table:
    table = _table("stage", "calls", "ms", "share")
    for part in found.stages:
        table.add_row(*_cells(part, found))
    table.add_row("total", "", f"{found.seconds * 1e3:,.2f}", "100.0 %", style="bold")
    return table


def _encoder_table(found: "Breakdown") -> Table:
    """A row for each role, all layers together."""
    table = _table("encoder", "calls", "ms", "share", "GOP/s")
    table.add_column("backend")
    for part in found.encoder:
        rate = f"{2 * part.multiply_adds / part.seconds / 1e9:,.0f}" if part.multiply_adds else ""
        table.add_row(*_cells(part, found), rate, part.backend)
    return table


def _decoder_table(found: "Breakdown") -> Table:
    """A row for each kind of work, all layers together; a step is a token, of each window of a batch."""
    table = _table(f"decoder, {found.steps} steps on {found.report.decoder.used}", "calls", "ms", "share", "ms a step")
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
