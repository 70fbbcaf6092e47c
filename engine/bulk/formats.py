"""Formats of finished rows beside rows.jsonl: openai-whisper's files, and Parquet (in `parquet`)."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tilewhisper.engine.bulk.files import is_url
from tilewhisper.engine.bulk.rows import Row
from tilewhisper.engine.bulk.work import Item
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.file_names import THIS_SYSTEM, NameRules, below, common_folder
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.results import Segment, TranscriptionInfo, Word

JSONL, PARQUET, FILES = "jsonl", "parquet", "files"
FORMATS = (JSONL, PARQUET, FILES, *(name for name in WRITERS if name != JSONL))


class RowFormat(ABC):
    """Writes rows in another form than rows.jsonl."""

    def add(self, row: Row) -> None:  # noqa: B027 (a format may wait for all rows)
        """Called for each row before it counts as finished. Raises OptionError."""

    @abstractmethod
    def finish(self, rows: Iterable[Row]) -> None:
        """Called at the end with all rows, those of earlier runs too. Raises OptionError."""


class TranscriptFiles(RowFormat):
    """openai-whisper's files, in folders as those of the recordings."""

    def __init__(
        self,
        folder: Path,
        items: Sequence[Item],
        names: Sequence[str],
        layout: SubtitleOptions,
        rules: NameRules = THIS_SYSTEM,
    ) -> None:
        """Raises OptionError where two items would be written to the same file."""
        self._layout = layout
        root = _common_folder(items)
        self._paths = {item.id: [folder / _name(root, item, name, rules) for name in names] for item in items}
        taken: dict[str, Item] = {}
        for item in items:
            path = self._paths[item.id][0]
            if (first := taken.setdefault(rules.key(path), item)) is not item:
                raise OptionError(f"{first.path} and {item.path} would both be written to {path}; rename one")

    def paths(self, id: str) -> Sequence[Path]:
        """The files of an item of this job."""
        return self._paths.get(id, ())

    def add(self, row: Row) -> None:
        if row.error:
            return
        segments = [_segment(fields) for fields in row.segments]
        for path in self.paths(row.id):
            text = WRITERS[path.suffix[1:]].render(segments, _info(row), self._layout)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, text)
            except OSError as e:
                raise OptionError(f"cannot write {path}: {e.strerror}") from e

    def finish(self, rows: Iterable[Row]) -> None:
        """Write the files of rows that an earlier run made in other formats."""
        for row in rows:
            if not all(path.exists() for path in self.paths(row.id)):
                self.add(row)


def _common_folder(items: Sequence[Item]) -> str:
    folders = [os.path.dirname(os.path.abspath(item.path)) for item in items if not is_url(item.path)]  # noqa: PTH100, PTH120 (keeps links)
    return common_folder(folders) if folders else ""


def _name(root: str, item: Item, name: str, rules: NameRules) -> Path:
    """`<folders below root>/<stem>.<name>`, with the times of a part; the host and folders of a URL stay."""
    if is_url(item.path):
        # Whatever a manifest names, files stay inside the output folder.
        parts = [part for part in item.path.partition("://")[2].split("/") if part not in ("", ".", "..")]
        path = Path(*map(rules.allowed, parts))
    else:
        path = Path(below(os.path.abspath(item.path), root))  # noqa: PTH100 (keeps links)
    end = "" if item.end is None else f"{item.end:g}"
    part = f".{item.start:g}-{end}" if item.start or end else ""
    return path.parent / rules.allowed(f"{path.stem}{part}.{name}")


def _segment(fields: Mapping[str, Any]) -> Segment:
    words = fields.get("words")
    return Segment(**{**fields, "words": words and [Word(**word) for word in words]})


def _info(row: Row) -> TranscriptionInfo:
    language, probability = row.language or "en", row.language_probability or 0.0
    return TranscriptionInfo(language, probability, row.seconds, row.seconds, None, TranscriptionOptions())
