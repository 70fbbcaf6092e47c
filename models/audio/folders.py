"""The recordings in folders, told by their extensions."""

import os
from pathlib import Path

from tilewhisper.models.errors import AudioError

# A file given by name is recognised by its content; in a folder, only the extension tells which files are recordings.
EXTENSIONS = (
    *(".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3"),
    *(".oga", ".ogg", ".opus", ".wav", ".wma", ".wv"),
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),
)


def has_extension(name: str) -> bool:
    """Whether a file's name is that of a recording; hidden files are none."""
    base = os.path.basename(name)  # noqa: PTH119 (also of URLs)
    return base.lower().endswith(EXTENSIONS) and not base.startswith(".")


def recordings_in(folder: str, *, recursive: bool) -> tuple[list[str], list[AudioError]]:
    """The recordings in a folder, sorted; and an error for each folder that cannot be read.

    `recursive` includes nested folders, each once, so that links do not lead in circles. Hidden files and folders are
    left out. Raises AudioError if nothing was found.
    """
    errors: list[AudioError] = []

    def note(e: OSError) -> None:
        errors.append(AudioError(f"{e.filename}: the folder cannot be read: {e.strerror}"))

    found: list[Path] = []
    deeper, seen = False, {os.path.realpath(folder)}
    for inner, names, files in os.walk(folder, followlinks=True, onerror=note):
        found += (path for name in files if has_extension(name) and (path := Path(inner, name)).is_file())
        names[:] = [name for name in sorted(names) if not name.startswith(".")]
        deeper = deeper or bool(names)
        names[:] = [name for name in names if recursive and _is_new(os.path.realpath(Path(inner, name)), seen)]
    if not found and not errors:
        inside = "" if recursive or not deeper else "; add --recursive True to search the folders in it"
        raise AudioError(
            f"{folder}: is a directory without audio or video files; name a file, or a folder that has some{inside}"
        )
    return [str(path) for path in sorted(found)], errors


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder has not been seen before; it has been then."""
    new = folder not in seen
    seen.add(folder)
    return new
