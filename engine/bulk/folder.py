"""The output folder of a bulk transcription: what it was made with, and the rows that are done.

`rows.jsonl` has a row for each finished item; a job continues from it. `spans.jsonl` has the finished spans of long
recordings whose other spans are missing.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tilewhisper.engine.bulk.files import content_of, local_copy, version_of
from tilewhisper.engine.bulk.journal import Journal
from tilewhisper.engine.bulk.rows import Row
from tilewhisper.engine.bulk.work import Content, Item, SpanResult
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.errors import AudioError

JOB, ROWS, SPANS, LOCK = "job.json", "rows.jsonl", "spans.jsonl", ".lock"


@dataclass(frozen=True)
class Plan:
    """The work that a folder lacks."""

    items: list[Item]
    size: int
    """Bytes of their files."""
    finished: int
    """How many other items have their rows."""


@dataclass(frozen=True)
class _Done:
    """What is remembered of a finished row: rows of 10,000 hours do not fit into memory."""

    content: Content
    failed: bool


class OutputFolder:
    """Open for one job at a time."""

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        """Create or open the folder. Raises OptionError where it was made with other options or is in use."""
        self.path = path
        with ExitStack() as stack:
            self._lock(stack)
            self._rows = stack.enter_context(closing(Journal(path / ROWS)))
            self._spans = stack.enter_context(closing(Journal(path / SPANS)))
            _check_job(path / JOB, made_with, begun=not (self._rows.empty and self._spans.empty))
            self._open = stack.pop_all()

    def unfinished(self, items: Iterable[Item], *, retry_errors: bool = False) -> Plan:
        """The items that need work: the same was not asked of the same content before.

        Content is the same if size and time of change are, or by its hash: a file that was moved gets a row of its own,
        with the old text. Raises OptionError.
        """
        done = {row.id: _Done(row.content, bool(row.error)) for row in self.rows()}
        by_request = {_request(row, row.size): row.id for row in self.rows() if not row.error}
        left: list[Item] = []
        size_left = finished = 0
        moved: dict[str, list[tuple[Item, Content]]] = {}
        for item in items:
            size, version = _version(item)
            row, other = done.get(item.id), by_request.get(_request(item, size))
            if row and (row.content.size, row.content.version) == (size, version) and not (row.failed and retry_errors):
                finished += 1
            elif other and (content := _content(item)) and content.sha256 == done[other].content.sha256:
                moved.setdefault(other, []).append((item, content))
            else:
                left.append(item)
                size_left += size
        self._repeat(moved)
        return Plan(left, size_left, finished + sum(map(len, moved.values())))

    def rows(self) -> Iterator[Row]:
        """The rows so far; of several with one id the last counts. Raises OptionError."""
        return self._rows.records(Row.from_json)

    def spans(self) -> Iterator[SpanResult]:
        """The results of spans whose items are not finished. Raises OptionError."""
        return self._spans.records(SpanResult.from_json)

    def add(self, row: Row) -> None:
        """Raises OptionError where there is no space."""
        self._rows.append(row.to_json())

    def add_span(self, result: SpanResult) -> None:
        """Raises OptionError where there is no space."""
        self._spans.append(result.to_json())

    def finish(self) -> None:
        """Leave one row of each id, and no spans. Raises OptionError."""
        last = {row.id: number for number, row in enumerate(self.rows())}
        if len(last) < sum(1 for _ in self._rows):
            self._rows.rewrite(fields for number, fields in enumerate(self._rows) if last[fields["id"]] == number)
        self._spans.rewrite(())

    def close(self) -> None:
        self._open.close()

    def _lock(self, stack: ExitStack) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            lock.acquire(timeout=0)
        except Timeout as e:
            raise OptionError(f"{self.path} is in use by another job; wait for it, or give another --output") from e
        except OSError as e:
            raise OptionError(f"cannot write the folder {self.path}: {e.strerror}") from e
        stack.callback(lock.release)

    def _repeat(self, moved: Mapping[str, list[tuple[Item, Content]]]) -> None:
        """Give items whose content is known rows of their own."""
        if not moved:
            return
        for row in list(filter(lambda row: row.id in moved, self.rows())):
            for item, content in moved[row.id]:
                self.add(replace(row, path=item.path, id=item.id, version=content.version))


def _request(of: Item | Row, size: int) -> str:
    """Equal where the same is asked of files of one size."""
    options = (of.language, of.task, of.prompt) if isinstance(of, Item) else of.asked
    return hashlib.sha256(json.dumps((size, of.start, of.end, *options)).encode()).hexdigest()


def _version(item: Item) -> tuple[int, str]:
    """Size and version; those of an error row's content if there is no such file."""
    try:
        return version_of(item.path)
    except (OSError, AudioError):
        return Content().size, Content().version


def _content(item: Item) -> Content | None:
    try:
        with local_copy(item.path) as copy:
            return content_of(item.path, copy)
    except (OSError, AudioError):
        return None


def _check_job(path: Path, made_with: Mapping[str, Any], *, begun: bool) -> None:
    """Raise OptionError where the folder's rows were made with other options."""
    wanted = json.loads(json.dumps(made_with))
    if not begun:
        try:
            write_whole(path, json.dumps(wanted, indent=1) + "\n")
        except OSError as e:
            raise OptionError(f"cannot write {path}: {e.strerror}") from e
        return
    try:
        before = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as e:
        raise OptionError(f"{path} cannot be read ({e}); give another --output") from e
    for name in [*wanted, *before]:
        if wanted.get(name) != before.get(name):
            raise OptionError(
                f"{path.parent} was made with {name} {before.get(name)}, not {wanted.get(name)}: its rows would not "
                "be alike; give another --output"
            )
