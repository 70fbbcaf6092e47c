"""Results of benchmarks on disk: the latest of each in one JSON file, and every run in a history of JSON lines."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tilewhisper.engine.output.files import write_whole


@dataclass(frozen=True)
class Result:
    """The figures of one benchmark, with commit, machine and versions."""

    benchmark: str
    command: str
    date: str
    """UTC, ISO 8601."""
    commit: str
    """Abbreviated; `+ changes` follows when the working copy differed from it."""
    machine: str
    threads: int
    packages: dict[str, str]
    """Versions by distribution name, this project's and the peers'."""
    rows: list[dict[str, Any]]
    quick: bool = False
    """Whether it is of a quick run, with fewer clips and smaller models."""


def load(path: Path) -> dict[str, Result]:
    """The latest result of each benchmark, by name; empty when there is no file."""
    if not path.exists():
        return {}
    return {one["benchmark"]: Result(**one) for one in json.loads(path.read_text(encoding="utf-8"))}


def store(path: Path, results: Mapping[str, Result], order: Iterable[str]) -> None:
    """Replace the file, benchmarks in `order`."""
    listed = [asdict(results[name]) for name in order if name in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


def runs(history: Path) -> list[Result]:
    """Every run of the history, oldest first; empty when there is no file."""
    if not history.exists():
        return []
    return [Result(**json.loads(line)) for line in history.read_text(encoding="utf-8").splitlines() if line]


def append(path: Path, result: Result) -> None:
    """Add one run to the history."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as history:
        history.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
