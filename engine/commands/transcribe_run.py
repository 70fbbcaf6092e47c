"""Transcribe files, show and write each text, and collect reports and failures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilewhisper.engine.commands import inputs
from tilewhisper.engine.commands.outputs import OutputFiles
from tilewhisper.engine.commands.screen import OutputLost, complain, plain, say
from tilewhisper.engine.commands.transcribe_task import TranscribeTask
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.progress import progress_bar

if TYPE_CHECKING:
    from tilewhisper.engine.pipeline.transcription import Transcript
    from tilewhisper.engine.report import RunReport
    from tilewhisper.engine.results import Segment, TranscriptionInfo
    from tilewhisper.engine.whisper_model import WhisperModel

INCOMPLETE = 3
"""Exit status if some of several files failed, or a file is damaged and was transcribed in part."""
LONG_SECONDS = 30.0
"""A file of more than one window gets a progress bar."""


@dataclass
class Outcome:
    reports: "list[RunReport]" = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    """File and error message."""

    @property
    def status(self) -> int:
        """The command's exit status."""
        if not self.failures and not self.damaged:
            return 0
        return INCOMPLETE if self.reports else 2

    @property
    def damaged(self) -> list[str]:
        """Files that were transcribed in part, because not all of their audio could be decoded."""
        return [report.file for report in self.reports if report.audio.damage]

    @contextmanager
    def collecting_failure(self, file: str, err: Console) -> Iterator[None]:
        """Print and record one of USER_ERRORS as this file's failure, so that the other files go on."""
        try:
            yield
        except USER_ERRORS as e:
            self.fail(file, e, err)

    def fail(self, file: str, error: Exception, err: Console) -> None:
        self.failures.append((file, str(error)))
        complain(err, str(error))

    def to_json(self) -> dict[str, Sequence[Any]]:
        return {
            "runs": [report.to_json() for report in self.reports],
            "failures": [{"file": file, "error": error} for file, error in self.failures],
        }


@dataclass(frozen=True)
class TranscribeRun:
    """One run of the command on files that can be read."""

    model: "WhisperModel"
    files: Sequence[str]
    task: TranscribeTask
    written: Mapping[str, Sequence[Path]]
    """The output files of each input."""
    outcome: Outcome
    out: Console
    err: Console
    survives_lost_output: bool
    """Whether to go on without standard output, because files are written."""

    def transcribe(self) -> None:
        if self.task.decodes_files_together(self.files):
            self._transcribe_together()
        else:
            self._transcribe_in_turn()

    def _transcribe_in_turn(self) -> None:
        """Transcribe one file after the other and show segments as they are decoded."""
        batch_size = self.task.chunks_per_batch(self.files)
        for file in self.files:
            self._show_heading(file)
            with self.outcome.collecting_failure(file, self.err):
                with progress_bar(self.err.is_terminal, self.err, above=LONG_SECONDS) as progress:
                    segments, info = self.model.transcribe(
                        inputs.source(file), batch_size=batch_size, progress=progress, **self.task.options
                    )
                    files = self._output_files(file)
                    found = self._show_segments(files.growing(segments))
                self._finish(file, files, found, info, segments.report())

    def _transcribe_together(self) -> None:
        """Decode windows of several files in one batch, and show the files in order, each when it is complete."""
        left, sources = list(self.files), [inputs.source(file) for file in self.files]
        try:
            with progress_bar(self.err.is_terminal, self.err) as progress:
                for transcript in self.model.transcribe_many(sources, self.task.batch_size, **self.task.options):
                    self._show_transcript(left.pop(0), transcript)
                    if progress:
                        progress(len(self.files) - len(left), len(self.files))
        except USER_ERRORS as e:  # an error that is not of a single file, such as a lost device
            self.outcome.failures += [(file, str(e)) for file in left]
            complain(self.err, str(e))

    def _show_transcript(self, file: str, transcript: "Transcript") -> None:
        self._show_heading(file)
        with self.outcome.collecting_failure(file, self.err):
            if transcript.info is None or transcript.report is None:
                raise transcript.error or AssertionError(file)
            files = self._output_files(file)
            found = self._show_segments(files.growing(iter(transcript.segments)))
            self._finish(file, files, found, transcript.info, transcript.report)

    def _output_files(self, file: str) -> OutputFiles:
        return OutputFiles(self.written.get(file, []), self.task.layout)

    def _show_heading(self, file: str) -> None:
        if not self.task.quiet and len(self.files) + len(self.outcome.failures) > 1:
            self.err.rule(plain(inputs.shown(file)), align="left")

    def _show_segments(self, segments: "Iterator[Segment]") -> "list[Segment]":
        """Show each segment as it comes."""
        found = []
        for segment in segments:
            if not self.task.quiet:
                self._show(segment)
            found.append(segment)
        return found

    def _show(self, segment: "Segment") -> None:
        from tilewhisper.engine.output.writers import timed_line

        try:
            say(self.out, timed_line(segment) if self.task.verbose else segment.text.strip())
        except (OutputLost, BrokenPipeError) as e:
            if not self.survives_lost_output:
                raise
            if isinstance(e, OutputLost):
                self.outcome.fail("standard output", e, self.err)

    def _finish(
        self,
        file: str,
        files: OutputFiles,
        segments: "Sequence[Segment]",
        info: "TranscriptionInfo",
        report: "RunReport",
    ) -> None:
        if not segments:
            say(self.err, f"{inputs.shown(file)}: no speech found")
        try:
            files.finish(segments, info)
        except OptionError:
            if self.task.quiet:  # the text must not be lost
                for segment in segments:
                    self._show(segment)
            raise
        if not self.task.quiet:
            _show_report(report, self.err)
        self.outcome.reports.append(replace(report, file=file))


def _show_report(report: "RunReport", err: Console) -> None:
    from tilewhisper.engine.commands import tables

    err.print()
    err.print(tables.stage_table(report))
    err.print()
    err.print(tables.backend_table(report))
    err.print()
    say(err, tables.setting_line(report))
    if line := tables.device_line(report):
        say(err, line)
    say(err, tables.summary_line(report), "bold")
