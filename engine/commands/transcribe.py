"""`tilewhisper transcribe`: text on standard output, everything else on standard error."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from tilewhisper.engine import policy as policies
from tilewhisper.engine.cli import FORMATS
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.models.audio import check_file
from tilewhisper.models.locate import locate

if TYPE_CHECKING:
    from tilewhisper.engine.model import WhisperModel
    from tilewhisper.engine.report import RunReport
    from tilewhisper.engine.results import Segment

GROWS = ".jsonl"
"""Of the format that is written as segments come; all others are written whole at the end."""
LONG_SECONDS = 30.0
"""A file with more than one window gets a progress bar."""


@dataclass
class _Outcome:
    reports: "list[RunReport]" = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        if not self.failures:
            return 0
        return 3 if self.reports else 2


def run(args: Namespace) -> int:
    """Raises USER_ERRORS for what concerns all files; a file of several that fails is named and the rest goes on."""
    out, err = console(), console(stderr=True)
    outputs = _outputs(args)
    check_writable(args.report)
    # All that can be wrong without torch is said before it is imported (1 s).
    locate(args.model)
    policies.load(args.policy).with_overrides(args.backend)

    outcome = _Outcome()
    files = [file for file in args.files if _attempt(file, outcome, err, partial(check_file, file))]
    if files:
        with _load(args, err) as model:
            for file in files:
                _attempt(file, outcome, err, partial(_one, model, file, args, outputs, outcome, out, err))
    if args.report:
        write(Path(args.report), json.dumps(_report(outcome), indent=1) + "\n")
    return outcome.status


def _load(args: Namespace, err: Console) -> "WhisperModel":
    from tilewhisper.engine.fingerprint import other_machine
    from tilewhisper.engine.model import WhisperModel
    from tilewhisper.engine.options import TranscriptionOptions

    model = WhisperModel(
        args.model, policy=args.policy, backends=args.backend, cpu_threads=args.threads, settings=settings(args)
    )
    model.check(TranscriptionOptions(args.language, args.task, audio_context=args.audio_context))
    if word := other_machine(model.policy):
        say(err, word)
    return model


def _attempt(file: str, outcome: _Outcome, err: Console, work: Callable[[], Any]) -> bool:
    try:
        work()
    except USER_ERRORS as e:
        outcome.failures.append((file, str(e)))
        say(err, f"tilewhisper: error: {e}")
        return False
    return True


def _one(
    model: "WhisperModel",
    file: str,
    args: Namespace,
    outputs: dict[str, list[Path]],
    outcome: _Outcome,
    out: Console,
    err: Console,
) -> None:
    from tilewhisper.engine import tables, writers

    if len(args.files) > 1:
        err.rule(file, align="left")
    with _progress(err) as progress:
        transcription, info = model.transcribe(
            file, args.language, args.task, progress=progress, audio_context=args.audio_context
        )
        segments = list(_shown(_kept(transcription, outputs.get(file, ())), out))
    if not segments:
        say(err, f"{file}: no speech found")
    for path in outputs.get(file, ()):
        if path.suffix != GROWS:
            write(path, writers.WRITERS[path.suffix[1:]](segments, info))
    report = transcription.report()
    outcome.reports.append(report)
    err.print()
    err.print(tables.stage_table(report))
    err.print()
    err.print(tables.backend_table(report))
    err.print()
    say(err, tables.setting_line(report))
    say(err, tables.summary_line(report), "bold")


def _kept(segments: "Iterator[Segment]", paths: Sequence[Path]) -> "Iterator[Segment]":
    """Each segment is in the files that grow before the next is decoded."""
    from tilewhisper.engine.writers import JsonLines

    with ExitStack() as files:
        growing = [files.enter_context(JsonLines(path)) for path in paths if path.suffix == GROWS]
        for segment in segments:
            for file in growing:
                file.write(segment)
            yield segment


def _shown(segments: "Iterator[Segment]", out: Console) -> "Iterator[Segment]":
    for segment in segments:
        say(out, segment.text.strip())
        yield segment


@contextmanager
def _progress(err: Console) -> Iterator[Callable[[float, float], None]]:
    """A bar for files of several windows, where there is a terminal to see it."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("transcribing", total=None, visible=False)

        def update(done: float, total: float) -> None:
            bar.update(task, completed=done, total=total, visible=total > LONG_SECONDS)

        yield update


def _outputs(args: Namespace) -> dict[str, list[Path]]:
    """The files each input is written to; empty when none was asked for.

    Raises OptionError where two inputs would go to one file, or a file could not be written.
    """
    if args.output_dir is None and args.output_format is None:
        return {}
    folder = Path(args.output_dir or ".")
    asked = args.output_format or "txt"
    suffixes = [name for name in FORMATS if name != "all"] if asked == "all" else [asked]
    outputs = {file: [folder / f"{Path(file).stem}.{suffix}" for suffix in suffixes] for file in args.files}
    taken: dict[Path, str] = {}
    for file, paths in outputs.items():
        for path in paths:
            if path in taken:
                raise OptionError(
                    f"{taken[path]} and {file} would both be written to {path}; give them different names"
                )
            taken[path] = file
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OptionError(f"cannot make the output folder {folder}: {e.strerror}") from e
    for path in taken:
        check_writable(path)
    return outputs


def _report(outcome: _Outcome) -> dict[str, Sequence[Any]]:
    return {
        "runs": [report.to_json() for report in outcome.reports],
        "failures": [{"file": file, "error": error} for file, error in outcome.failures],
    }
