"""A bulk transcription: tasks to the workers, results to the folder, in rounds until every item has a row.

The first round has every item; long ones are only cut in it. The second has the spans of long items. Tasks whose worker
ended are tried once more, each alone; one that ends a worker again becomes an error row.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from tilewhisper.engine.bulk.files import version_of
from tilewhisper.engine.bulk.folder import OutputFolder
from tilewhisper.engine.bulk.formats import RowFormat
from tilewhisper.engine.bulk.rows import Row, joined
from tilewhisper.engine.bulk.work import Answer, Content, Item, Span, SpanResult, Task
from tilewhisper.models.errors import AudioError


class Runner(Protocol):
    """Workers, wherever they are."""

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Iterator[Answer]:
        """Each task's answer, in the order of completion; `alone` gives a worker one task at a time."""


@dataclass
class Progress:
    """What a job has done so far, without the rows of earlier runs."""

    rows: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes: int = 0
    """Of the files that are done."""
    started: float = 0.0
    """By `time.monotonic`."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


OnRow = Callable[[Row, Progress], None]
"""Called after each row is written."""


class BulkJob:
    """Transcribes items into a folder."""

    def __init__(
        self, folder: OutputFolder, formats: Sequence[RowFormat], on_row: Callable[[Row, Progress], None]
    ) -> None:
        self._folder, self._formats, self._on_row = folder, formats, on_row
        self.progress = Progress()
        self._results: dict[str, dict[int, SpanResult]] = {}
        """By item and number, of items of several spans."""

    def run(self, items: Iterable[Item], runner: Runner) -> None:
        """Raises EngineError; what is done by then stays."""
        self.progress.started = time.monotonic()
        earlier = {result.span: result for result in self._folder.spans()}
        tasks: list[Task] = list(items)
        suspects: list[Task] = []
        while tasks or suspects:
            alone = not tasks
            tasks, running = [], suspects if alone else tasks
            if alone:
                suspects = []
            for answer in runner.run(running, alone=alone):
                if isinstance(answer, tuple):
                    tasks += self._missing(answer, earlier)
                elif answer.lost and not alone:
                    suspects.append(_task(answer))
                else:
                    self._take(answer)

    def finish(self) -> None:
        """Complete the folder. Raises OptionError."""
        self._folder.finish()
        for form in self._formats:
            form.finish(self._folder.rows())

    def _missing(self, spans: Iterable[Span], earlier: Mapping[Span, SpanResult]) -> Iterator[Span]:
        """The spans that an earlier run did not finish; takes the results of the others."""
        for span in spans:
            if result := earlier.get(span):
                self._collect(result)
            else:
                yield span

    def _take(self, result: SpanResult) -> None:
        """Count a result and write what it completes."""
        if result.lost:
            result = replace(result, span=replace(result.span, content=_as_seen(result.span)))
        self.progress.audio_seconds += result.audio_seconds
        self.progress.cpu_seconds += result.cpu_seconds
        if result.span.of == 1:
            self._write(joined(result.span.item, [result]))
            return
        if not result.error:
            self._folder.add_span(result)
        self._collect(result)

    def _collect(self, result: SpanResult) -> None:
        item = result.span.item
        results = self._results.setdefault(item.id, {})
        results[result.span.number] = result
        if len(results) == result.span.of:
            del self._results[item.id]
            self._write(joined(item, [results[number] for number in range(result.span.of)]))

    def _write(self, row: Row) -> None:
        for form in self._formats:
            form.add(row)
        self._folder.add(row)
        self.progress.rows += 1
        self.progress.failed += bool(row.error)
        self.progress.bytes += row.size
        self._on_row(row, self.progress)


def _task(answer: SpanResult) -> Task:
    """The task of a lost answer: its item where the worker ended before it had read the content."""
    return answer.span if answer.span.content.sha256 else answer.span.item


def _as_seen(span: Span) -> Content:
    """The content of a span whose worker has ended: without a hash where none is known."""
    if span.content.sha256:
        return span.content
    with suppress(OSError, AudioError):
        return Content(*version_of(span.item.path))
    return span.content
