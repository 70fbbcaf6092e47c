"""What `transcribe` was given to hear: files, and the files of folders."""

from collections.abc import Iterator
from pathlib import Path

from tilewhisper.models.errors import AudioError

# A file that is named is known by its content; which of a folder's are meant, only their endings can say.
ENDINGS = (
    *(".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3"),
    *(".oga", ".ogg", ".opus", ".wav", ".wma", ".wv"),
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),
)


def files_of(argument: str) -> list[str]:
    """The argument itself, or, of a folder, its audio and video files in order. Raises AudioError."""
    if not Path(argument).is_dir():
        return [argument]
    try:
        found = sorted(str(path) for path in _recordings(Path(argument)))
    except OSError as e:
        raise AudioError(f"{argument}: the folder cannot be read: {e.strerror}") from e
    if not found:
        raise AudioError(f"{argument}: is a directory without audio or video files")
    return found


def _recordings(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file():
            yield path
