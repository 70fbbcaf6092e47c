"""Transcript files: which files each input is written to, and writing them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.engine.commands.files import check_writable, write, writing
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.output.writers import WRITERS, GrowingFile, GrowingWriter, Writer

if TYPE_CHECKING:
    from tilewhisper.engine.results import Segment, TranscriptionInfo

ALL = "all"
"""The value of --output_format that stands for every format."""


def plan(files: Sequence[str], folder: Path, output_format: str) -> dict[str, list[Path]]:
    """The files each input is written to, in an existing folder; `output_format` is a format's name or `ALL`.

    Raises OptionError if two inputs share an output file, or a file cannot be written.
    """
    names = WRITERS if output_format == ALL else [output_format]
    outputs = {file: [folder / f"{Path(file).stem}.{name}" for name in names] for file in files}
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


def growing(segments: "Iterator[Segment]", paths: Sequence[Path]) -> "Iterator[Segment]":
    """Write each segment to the growing files before the next is decoded. Raises OptionError."""
    with ExitStack() as stack:
        files: list[tuple[Path, GrowingFile]] = []
        for path in paths:
            if isinstance(writer := _writer(path), GrowingWriter):
                with writing(path):
                    files.append((path, stack.enter_context(GrowingFile(path, writer))))
        for segment in segments:
            for path, file in files:
                with writing(path):
                    file.write(segment)
            yield segment


def finish(
    segments: "Sequence[Segment]", info: "TranscriptionInfo", paths: Sequence[Path], layout: SubtitleOptions
) -> None:
    """Write the files that do not grow. Raises OptionError."""
    for path in paths:
        if not isinstance(writer := _writer(path), GrowingWriter):
            write(path, writer.render(segments, info, layout))


def _writer(path: Path) -> Writer:
    return WRITERS[path.suffix[1:]]
