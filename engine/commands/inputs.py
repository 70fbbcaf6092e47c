"""The input files of `transcribe`, including the files in folders."""

from collections.abc import Iterator
from pathlib import Path

from tilewhisper.models.errors import AudioError

# A file given by name is recognised by its content; in a folder, only the extension tells which files are recordings.
EXTENSIONS = (
    *(".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3"),
    *(".oga", ".ogg", ".opus", ".wav", ".wma", ".wv"),
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),
)


def files_of(argument: str) -> list[str]:
    """The file itself, or the audio and video files of a folder, sorted by name. Raises AudioError."""
    if not Path(argument).is_dir():
        return [argument]
    try:
        found = sorted(str(path) for path in _recordings(Path(argument)))
    except OSError as e:
        raise AudioError(f"{argument}: the folder cannot be read: {e.strerror}") from e
    if not found:
        raise AudioError(
            f"{argument}: is a directory without audio or video files; name a file, or a folder that has some"
        )
    return found


def _recordings(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file():
            yield path
