"""Transcript files: which files each input is written to, and writing them."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.engine.commands import inputs
from tilewhisper.engine.commands.files import check_writable, writing
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.file_names import THIS_SYSTEM, NameRules, below
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS, GrowingFile, GrowingWriter, Writer

if TYPE_CHECKING:
    from tilewhisper.engine.results import Segment, TranscriptionInfo

ALL = "all"
"""The format that stands for every format."""
STDIN_STEM = "stdin"


def parse_formats(text: str) -> list[str]:
    """Names of formats, separated by commas, as the names of `WRITERS`. Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (*WRITERS, ALL):
            near = difflib.get_close_matches(name, WRITERS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown format {name!r}; {hint}choose from {', '.join(WRITERS)} and {ALL}")
    return list(WRITERS) if ALL in names else names


@dataclass(frozen=True)
class Naming:
    """How the files of an input are named: by its stem, in the output folder, unless flags keep more of its path."""

    folder: Path
    formats: Sequence[str]
    root: str
    """The folder that all inputs share, as an absolute path or ""."""
    keep_folders: bool = False
    """Repeat the folders between `root` and the input in the output folder."""
    keep_extension: bool = False
    rules: NameRules = THIS_SYSTEM

    def paths(self, file: str) -> list[Path]:
        names = [self.rules.allowed(f"{self._stem(file)}.{name}") for name in dict.fromkeys(self.formats)]
        return [self._folder_of(file) / name for name in names]

    def _folder_of(self, file: str) -> Path:
        if not self.keep_folders or file == inputs.STDIN:
            return self.folder
        return self.folder / below(os.path.dirname(os.path.abspath(file)), self.root)  # noqa: PTH100, PTH120 (".." is resolved)

    def _stem(self, file: str) -> str:
        if file == inputs.STDIN:
            return STDIN_STEM
        return Path(file).name if self.keep_extension else Path(file).stem


def plan(files: Sequence[str], naming: Naming) -> dict[str, list[Path]]:
    """The files that each input is written to, in existing folders.

    Raises OptionError if two inputs share an output file, or a file cannot be written.
    """
    outputs = {file: naming.paths(file) for file in files}
    if shared := _shared(outputs, naming.rules):
        raise OptionError(_shared_message(*shared, naming, files))
    for folder in dict.fromkeys(path.parent for paths in outputs.values() for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OptionError(f"cannot make the output folder {folder}: {e.strerror}") from e
    for paths in outputs.values():
        for path in paths:
            check_writable(path)
    return outputs


def _shared(outputs: Mapping[str, Sequence[Path]], rules: NameRules) -> tuple[str, str, Path] | None:
    """Two inputs and the first file that both would be written to."""
    taken: dict[str, str] = {}
    for file, paths in outputs.items():
        for path in paths:
            if (first := taken.setdefault(rules.key(path), file)) != file:
                return first, file, path
    return None


def _shared_message(first: str, second: str, path: Path, naming: Naming, files: Sequence[str]) -> str:
    """What is wrong, and the flags that give every input files of its own."""
    ways = {
        "--keep_folders True": replace(naming, keep_folders=True),
        "--keep_extension True": replace(naming, keep_extension=True),
        "--keep_folders True --keep_extension True": replace(naming, keep_folders=True, keep_extension=True),
    }
    both = f"{inputs.shown(first)} and {inputs.shown(second)} would both be written to {path}"
    for flags, other in ways.items():
        if not _shared({file: other.paths(file) for file in files}, naming.rules):
            return f"{both}; add {flags} to write {other.paths(first)[0]} and {other.paths(second)[0]}"
    return f"{both}; transcribe them separately, each with its own --output_dir"


class OutputFiles:
    """The output files of one input. A file that fails does not stop the others; `finish` reports it."""

    def __init__(self, paths: Sequence[Path], layout: SubtitleOptions) -> None:
        self._paths = [path for path in paths if not isinstance(_writer(path), GrowingWriter)]
        self._growing = {path: writer for path in paths if isinstance(writer := _writer(path), GrowingWriter)}
        self._layout = layout
        self._failures: list[str] = []

    def growing(self, segments: "Iterator[Segment]") -> "Iterator[Segment]":
        """Pass the segments on, each after it was written to the growing files and before the next is decoded."""
        with ExitStack() as stack:
            files: dict[Path, GrowingFile] = {}
            for path, writer in self._growing.items():
                with self._noting(path):
                    files[path] = stack.enter_context(GrowingFile(path, writer))
            for segment in segments:
                for path in list(files):
                    file = files.pop(path)
                    with self._noting(path):
                        file.write(segment)
                        files[path] = file
                yield segment

    def finish(self, segments: "Sequence[Segment]", info: "TranscriptionInfo") -> None:
        """Write the files that do not grow. Raises OptionError for all files that could not be written."""
        for path in self._paths:
            with self._noting(path):
                write_whole(path, _writer(path).render(segments, info, self._layout))
        if self._failures:
            raise OptionError("; ".join(self._failures))

    @contextmanager
    def _noting(self, path: Path) -> Iterator[None]:
        try:
            with writing(path):
                yield
        except OptionError as e:
            self._failures.append(str(e))


def _writer(path: Path) -> Writer:
    return WRITERS[path.suffix[1:]]
