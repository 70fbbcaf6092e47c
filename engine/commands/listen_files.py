"""Files that grow while live speech is transcribed: subtitles, text and JSON Lines, complete after every cue."""

import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewhisper.engine.commands.files import check_writable, writing
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.writers import WRITERS, GrowingFile, GrowingWriter

if TYPE_CHECKING:
    from tilewhisper.engine.results import Segment

JSON_LINES = "jsonl"
FORMATS = ("txt", "vtt", "srt", "tsv", JSON_LINES)
"""The formats that can be written cue by cue."""
STEM = "live"


def parse_formats(text: str) -> list[str]:
    """Names of formats, separated by commas. Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (*FORMATS, "all"):
            near = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown format {name!r}; {hint}choose from {', '.join(FORMATS)} and all")
    return list(FORMATS) if "all" in names else names


def plan(formats: Sequence[str], folder: str | None) -> list[Path]:
    """The files to write, in a folder that exists then. Raises OptionError."""
    if not formats and folder is None:
        return []
    place = Path(folder or ".")
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{STEM}.{name}" for name in dict.fromkeys(formats or FORMATS)]
    for path in paths:
        check_writable(path)
    return paths


class LiveFiles:
    """The open files. One that cannot be written any more does not stop the others; `failures` says why."""

    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        """`stack` closes the files."""
        self.failures: list[str] = []
        self._files: dict[Path, GrowingFile] = {}
        for path in paths:
            with self._noting(path):
                self._files[path] = stack.enter_context(GrowingFile(path, _CueWriter(path.suffix[1:])))

    def write(self, cue: "Segment") -> None:
        for path, file in [*self._files.items()]:
            with self._noting(path):
                file.write(cue)

    @contextmanager
    def _noting(self, path: Path) -> Iterator[None]:
        try:
            with writing(path):
                yield
        except OptionError as error:
            self._files.pop(path, None)
            self.failures.append(str(error))


class _CueWriter(GrowingWriter):
    """A format written cue by cue."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def line(self, segment: "Segment") -> str:
        self._count += 1
        if self._name == JSON_LINES:
            return json.dumps(_fields(segment), ensure_ascii=False) + "\n"
        writer: Any = WRITERS[self._name]
        head = "" if self._name == "srt" else writer.render([], None)
        cue: str = writer.render([segment], None)
        if self._name == "srt":
            return cue.replace("1", str(self._count), 1)
        return cue if self._count == 1 else cue.removeprefix(head)


def _fields(cue: "Segment") -> dict[str, Any]:
    """What is known of live speech."""
    words = [asdict(word) for word in cue.words or []]
    return {"start": cue.start, "end": cue.end, "text": cue.text.strip(), "words": words}
