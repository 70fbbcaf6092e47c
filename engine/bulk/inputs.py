"""The items of a bulk transcription: recordings, folders and glob patterns, local or remote, and manifests.

A manifest is a JSON Lines or Parquet file with a column `path` and, for each row that needs one, `language`, `task`,
`prompt`, `start` and `end`. Relative paths are relative to the manifest.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tilewhisper.engine.bulk import parquet
from tilewhisper.engine.bulk.files import is_url, local_copy, matching, opened
from tilewhisper.engine.bulk.work import Item
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.audio.folders import has_extension, recordings_in
from tilewhisper.models.errors import ModelsError

COLUMNS = tuple(field.name for field in fields(Item))
MANIFESTS = (".jsonl", ".parquet")
EXAMPLE = '{"path": "talk.mp3", "language": "en"}'


def items_of(arguments: Sequence[str]) -> tuple[list[Item], list[str]]:
    """The items that the arguments name, each once, and notes for the user. Raises OptionError and AudioError."""
    found: dict[str, Item] = {}
    notes: list[str] = []
    repeated = 0
    for argument in arguments:
        for item in _items(argument, notes):
            repeated += item.id in found
            found[item.id] = item
    if repeated:
        notes.append(f"{repeated} of the rows and files were named more than once, and are transcribed once")
    if not found:
        raise OptionError(f"no recordings in {', '.join(arguments)}")
    return list(found.values()), notes


def _items(argument: str, notes: list[str]) -> Iterator[Item]:
    if argument.lower().endswith(MANIFESTS):
        yield from _manifest(argument, notes)
    elif "*" in argument:
        yield from map(Item, _found(argument, matching(argument)))
    elif is_url(argument) and not has_extension(argument):
        yield from map(Item, _found(argument, list(filter(has_extension, matching(argument)))))
    elif is_url(argument) or not os.path.isdir(argument):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        yield Item(argument)
    else:
        paths, errors = recordings_in(argument, recursive=True)
        notes += map(str, errors)
        yield from map(Item, paths)


def _found(argument: str, paths: list[str]) -> list[str]:
    if paths:
        return paths
    raise OptionError(f"{argument}: no recording is found there")


def _manifest(path: str, notes: list[str]) -> Iterator[Item]:
    """Raises OptionError that names the row."""
    try:
        rows = list(_parquet_rows(path) if path.lower().endswith(".parquet") else _json_rows(path))
    except OSError as e:
        raise OptionError(f"{path}: cannot be read: {e.strerror or e}") from e
    if not rows:
        raise OptionError(f"{path}: has no rows")
    if unknown := sorted({name for _, row in rows for name in row} - {*COLUMNS}):
        notes.append(f"{path}: columns without effect: {', '.join(unknown)}; those with one are {', '.join(COLUMNS)}")
    for where, row in rows:
        yield _item(f"{path}: {where}", row, path)


def _json_rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise OptionError(f"{path}: line {number} is no JSON: {e}") from e
            if not isinstance(row, dict):
                raise OptionError(f"{path}: line {number} must be an object such as {EXAMPLE}, got {row!r:.60}")
            yield f"line {number}", row


def _parquet_rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with local_copy(path) as copy:
        for number, row in enumerate(parquet.read_rows(copy), start=1):
            yield f"row {number}", row


def _item(where: str, row: Mapping[str, Any], manifest: str) -> Item:
    """Raises OptionError."""
    given = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    if not given.get("path"):
        raise OptionError(f"{where} has no path; a row is an object such as {EXAMPLE}")
    for name, value in given.items():
        is_time = name in ("start", "end")
        if isinstance(value, bool) or not isinstance(value, (int, float) if is_time else str):
            raise OptionError(f"{where}: {name} must be {'seconds' if is_time else 'text'}, got {value!r:.60}")
    start, end = _seconds(given.get("start", 0.0)), given.get("end")
    if not 0 <= start < (math.inf if end is None else _seconds(end)) or math.inf in (start, end):
        raise OptionError(f"{where}: start and end must be seconds with 0 <= start < end, got {start:g} and {end}")
    item = Item(
        _placed(given["path"], manifest),
        start,
        None if end is None else _seconds(end),
        given.get("language"),
        given.get("task"),
        given.get("prompt"),
    )
    try:
        TranscriptionOptions(**item.options)
    except (OptionError, ModelsError) as e:
        raise OptionError(f"{where}: {e}") from e
    return item


def _seconds(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _placed(path: str, manifest: str) -> str:
    """A path of a manifest, relative to its folder."""
    if is_url(path) or os.path.isabs(path):  # noqa: PTH117 (`path` may be no path at all)
        return path
    if is_url(manifest):
        return f"{manifest.rpartition('/')[0]}/{path}"
    return str(Path(manifest).parent / path)
