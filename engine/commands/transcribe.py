"""`tilewhisper transcribe`: text on standard output, everything else on standard error."""

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilewhisper.engine import startup
from tilewhisper.engine.commands import flags, inputs, loading, outputs
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.parser import DEFAULT_BATCH_SIZE
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import check_batch_size
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.progress import progress_bar
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.audio.reader import check_file
from tilewhisper.models.checkpoint.locate import locate

if TYPE_CHECKING:
    from tilewhisper.engine.pipeline.transcription import Transcript
    from tilewhisper.engine.report import RunReport
    from tilewhisper.engine.results import Segment, TranscriptionInfo
    from tilewhisper.engine.whisper_model import WhisperModel

LONG_SECONDS = 30.0
"""A file with more than one window gets a progress bar."""

_SOME_FAILED = 3


@dataclass(frozen=True)
class _Task:
    """What all files have in common."""

    model: str
    policy: str
    backends: Sequence[str]
    options: dict[str, Any]
    """Fields of TranscriptionOptions; the defaults are left out."""
    batched: bool | None
    batch_size: int | None
    layout: SubtitleOptions
    verbose: bool | None

    @property
    def quiet(self) -> bool:
        return self.verbose is False

    def together(self, files: Sequence[str]) -> bool:
        """Whether the files' windows are decoded together, each file as it would be alone."""
        return len(files) > 1 and not self.batched and self.batch_size != 1

    def pieces(self, files: Sequence[str]) -> int | None:
        """How many pieces of one file are decoded together; None where it is not cut."""
        alone = len(files) == 1 and self.batch_size is not None
        cut = alone if self.batched is None else self.batched
        return (self.batch_size or DEFAULT_BATCH_SIZE) if cut else None


@dataclass
class _Outcome:
    reports: "list[RunReport]" = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        if not self.failures:
            return 0
        return _SOME_FAILED if self.reports else 2


def run(args: Namespace) -> int:
    """Raises USER_ERRORS for what concerns all files; a file of several that fails is named and the rest goes on."""
    out, err = console(), console(stderr=True)
    if out.is_terminal and err.is_terminal:
        err = out  # one screen: a bar must know of every line, or lines come to stand behind it
    # All that can be wrong without torch is said before it is imported (1 s).
    task = _task(args)
    check_writable(args.report)
    locate(task.model)
    load_policy(task.policy).with_overrides(task.backends)
    outcome = _Outcome()
    files = _files(args.files, outcome, err)
    for note in _in_vain(task, files):
        say(err, f"tilewhisper: warning: {note}")
    written = _outputs(files, args)

    if files:
        with _load(task, args, err) as model:
            run = _Run(model, files, task, written, outcome, out, err)
            if task.together(files):
                run.together()
            else:
                run.in_turn()
    if outcome.status == _SOME_FAILED:
        say(err, f"tilewhisper: failed: {', '.join(file for file, _ in outcome.failures)}")
    if args.report:
        write(Path(args.report), json.dumps(_report(outcome), indent=1) + "\n")
    return outcome.status


def _task(args: Namespace) -> _Task:
    loading.check_device(args.device)
    policy, backends = loading.policy(args)
    return _Task(
        model=loading.model(args),
        policy=policy,
        backends=backends,
        options=flags.options(args),
        batched=args.batched,
        batch_size=_batch_size(args),
        layout=flags.subtitle_options(args),
        verbose=args.verbose,
    )


def _batch_size(args: Namespace) -> int | None:
    size: int | None = args.batch_size
    check_batch_size(size)
    return size


def _in_vain(task: _Task, files: Sequence[str]) -> Iterator[str]:
    """What was asked for and has no effect."""
    yield from task.layout.notes()
    if task.batch_size is not None and task.batched is False and len(files) == 1:
        yield "batch_size has no effect with --batched False"
    if "vad_parameters" in task.options and not task.options.get("vad_filter"):
        yield "the vad_ flags have no effect without --vad_filter True"


def _files(arguments: Sequence[str], outcome: _Outcome, err: Console) -> list[str]:
    """The files to hear, folders opened, none of them twice."""
    found: dict[str, None] = {}
    for argument in arguments:
        with _attempt(argument, outcome, err):
            found |= dict.fromkeys(inputs.files_of(argument))
    usable = []
    for file in found:
        with _attempt(file, outcome, err):
            check_file(file)
            usable.append(file)
    return usable


@contextmanager
def _attempt(file: str, outcome: _Outcome, err: Console) -> Iterator[None]:
    """What fails for this file is said, and kept for the report; it does not stop the rest."""
    try:
        yield
    except USER_ERRORS as e:
        outcome.failures.append((file, str(e)))
        say(err, f"tilewhisper: error: {e}")


def _outputs(files: Sequence[str], args: Namespace) -> dict[str, list[Path]]:
    """The files each input is written to; empty where none was asked for. Raises OptionError."""
    if args.output_dir is None and args.output_format is None and args.verbose is not False:
        return {}
    return outputs.plan(files, Path(args.output_dir or "."), args.output_format or "all")


def _load(task: _Task, args: Namespace, err: Console) -> "WhisperModel":
    with startup.no_compilers():
        from tilewhisper.engine.whisper_model import WhisperModel
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.engine.tuning.fingerprint import other_machine

    options = TranscriptionOptions(**task.options)
    model = WhisperModel(
        task.model, policy=task.policy, backends=task.backends, cpu_threads=args.threads, settings=settings(args)
    )
    model.check(options)
    if word := other_machine(model.policy):
        say(err, word)
    return model


@dataclass(frozen=True)
class _Run:
    """The files on their way through the model; what comes of each is shown, written and kept for the report."""

    model: "WhisperModel"
    files: Sequence[str]
    task: _Task
    written: Mapping[str, Sequence[Path]]
    outcome: _Outcome
    out: Console
    err: Console

    def in_turn(self) -> None:
        """One file after the other, its segments shown as they are decoded."""
        pieces = self.task.pieces(self.files)
        for file in self.files:
            self._head(file)
            with _attempt(file, self.outcome, self.err):
                with progress_bar(self.err.is_terminal, self.err, above=LONG_SECONDS) as progress:
                    segments, info = self.model.transcribe(
                        file, batch_size=pieces, progress=progress, **self.task.options
                    )
                    found = self._take(file, segments)
                self._finish(file, found, info, segments.report())

    def together(self) -> None:
        """The files' windows are decoded together; each file is shown whole, in its turn."""
        left = list(self.files)
        try:
            with progress_bar(self.err.is_terminal, self.err) as progress:
                for transcript in self.model.transcribe_many(self.files, self.task.batch_size, **self.task.options):
                    self._come(left.pop(0), transcript)
                    if progress:
                        progress(len(self.files) - len(left), len(self.files))
        except USER_ERRORS as e:  # of no file in particular
            self.outcome.failures += [(file, str(e)) for file in left]
            say(self.err, f"tilewhisper: error: {e}")

    def _come(self, file: str, transcript: "Transcript") -> None:
        self._head(file)
        with _attempt(file, self.outcome, self.err):
            if transcript.info is None or transcript.report is None:
                raise transcript.error or AssertionError(file)
            found = self._take(file, iter(transcript.segments))
            self._finish(file, found, transcript.info, transcript.report)

    def _head(self, file: str) -> None:
        if not self.task.quiet and len(self.files) + len(self.outcome.failures) > 1:
            self.err.rule(file, align="left")

    def _take(self, file: str, segments: "Iterator[Segment]") -> "list[Segment]":
        """Each is shown, and written to the files that grow."""
        return list(_shown(outputs.growing(segments, self.written.get(file, [])), self.task.verbose, self.out))

    def _finish(self, file: str, segments: "Sequence[Segment]", info: "TranscriptionInfo", report: "RunReport") -> None:
        if not segments:
            say(self.err, f"{file}: no speech found")
        outputs.finish(segments, info, self.written.get(file, []), self.task.layout)
        if not self.task.quiet:
            _show_figures(report, self.err)
        self.outcome.reports.append(report)


def _shown(segments: "Iterator[Segment]", verbose: bool | None, out: Console) -> "Iterator[Segment]":
    from tilewhisper.engine.output.writers import timed_line

    for segment in segments:
        if verbose is not False:
            say(out, timed_line(segment) if verbose else segment.text.strip())
        yield segment


def _show_figures(report: "RunReport", err: Console) -> None:
    from tilewhisper.engine.commands import tables

    err.print()
    err.print(tables.stage_table(report))
    err.print()
    err.print(tables.backend_table(report))
    err.print()
    say(err, tables.setting_line(report))
    say(err, tables.summary_line(report), "bold")


def _report(outcome: _Outcome) -> dict[str, Sequence[Any]]:
    return {
        "runs": [report.to_json() for report in outcome.reports],
        "failures": [{"file": file, "error": error} for file, error in outcome.failures],
    }
