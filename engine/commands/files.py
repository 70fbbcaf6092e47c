"""Files that commands write: checked before the work, written whole after it."""

from pathlib import Path

from tilewhisper.engine.errors import OptionError


def check_folder_of(file: str | None) -> None:
    """Raise OptionError where `file` could not be written for want of a folder."""
    if file and not Path(file).absolute().parent.is_dir():
        raise OptionError(f"cannot write {file}: there is no folder {Path(file).parent}")


def write(path: Path, text: str) -> None:
    """Raises OptionError."""
    from tilewhisper.engine.writers import write_whole

    try:
        write_whole(path, text)
    except OSError as e:
        raise OptionError(f"cannot write {path}: {e.strerror}") from e
