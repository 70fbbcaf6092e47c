"""Transcripts as files: where those of each input go, and the writing of them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.engine.commands.files import check_writable, write, writing
from tilewhisper.engine.commands.main import FORMATS
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import SubtitleOptions

if TYPE_CHECKING:
    from tilewhisper.engine.results import Segment, TranscriptionInfo

GROWS = ".jsonl"
"""Of the format that is written as segments come; all others are written whole at the end."""


def plan(files: Sequence[str], folder: Path, asked: str) -> dict[str, list[Path]]:
    """The files each input is written to, their folder made. `asked` is one of FORMATS.

    Raises OptionError where two inputs would go to one file, or a file could not be written.
    """
    suffixes = [name for name in FORMATS if name != "all"] if asked == "all" else [asked]
    outputs = {file: [folder / f"{Path(file).stem}.{suffix}" for suffix in suffixes] for file in files}
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
    """Each segment is in the files that grow before the next is decoded. Raises OptionError."""
    from tilewhisper.engine.output.writers import JsonLines

    with ExitStack() as stack:
        files: list[tuple[Path, JsonLines]] = []
        for path in paths:
            if path.suffix == GROWS:
                with writing(path):
                    files.append((path, stack.enter_context(JsonLines(path))))
        for segment in segments:
            for path, file in files:
                with writing(path):
                    file.write(segment)
            yield segment


def finish(
    segments: "Sequence[Segment]", info: "TranscriptionInfo", paths: Sequence[Path], layout: SubtitleOptions
) -> None:
    """Write the files that do not grow. Raises OptionError."""
    from tilewhisper.engine.output.writers import WRITERS

    for path in paths:
        if path.suffix != GROWS:
            write(path, WRITERS[path.suffix[1:]](segments, info, layout))
