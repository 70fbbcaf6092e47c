"""Files of a bulk transcription, local or behind a URL that fsspec knows."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from tilewhisper.engine.bulk.work import Content
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.file_names import THIS_SYSTEM
from tilewhisper.models.errors import AudioError

_BLOCK = 1 << 20


def is_url(path: str) -> bool:
    return "://" in path


def version_of(path: str) -> tuple[int, str]:
    """A file's size in bytes, and its time of change or a remote store's tag. Raises OSError and AudioError."""
    if not is_url(path):
        try:
            status = os.stat(path)  # noqa: PTH116 (a name may be too long for a Path)
        except ValueError as e:  # a name that no file can have
            raise AudioError(f"{path}: {e}") from e
        if not stat.S_ISREG(status.st_mode):  # a pipe or device may never end
            raise AudioError(f"{path}: is a folder, pipe or device; expected a file")
        return status.st_size, str(status.st_mtime_ns)
    info = _remote(path, lambda files, name: files.info(name))
    tags = (info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated"))
    return int(info.get("size") or 0), str(next(filter(None, tags), ""))


def content_of(path: str, copy: Path) -> Content:
    """What the file holds; `copy` is a local copy of it, or the file itself. Raises OSError and AudioError."""
    version = version_of(path)  # before its bytes: a file that changes meanwhile is done again
    digest = hashlib.sha256()
    with copy.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return Content(*version, digest.hexdigest())


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of a remote one. Raises OSError and AudioError."""
    if not is_url(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="tilewhisper-") as folder:
        # The name stays, for messages and for containers that are told by it.
        copy = Path(folder, THIS_SYSTEM.allowed(PurePosixPath(path).name) or "audio")
        with opened(path) as remote, copy.open("wb") as file:
            shutil.copyfileobj(remote, file, _BLOCK)
        yield copy


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file for reading, local or remote. Raises OSError and AudioError."""
    if not is_url(path):
        with Path(path).open("rb") as file:
            yield file
        return
    with _remote(path, lambda files, name: files.open(name, "rb")) as file:
        yield cast(BinaryIO, file)


def matching(pattern: str) -> list[str]:
    """The files that a glob pattern or the folder behind a URL names, sorted. Raises OSError and AudioError."""
    if not is_url(pattern):
        folder = Path(pattern).anchor
        found = Path(folder or ".").glob(str(Path(pattern).relative_to(folder)) if folder else pattern)
        return sorted(str(path) for path in found if path.is_file())
    scheme = pattern.partition("://")[0]
    names = _remote(pattern, lambda files, name: files.glob(name) if "*" in name else files.find(name))
    return sorted(name if is_url(name) else f"{scheme}://{name}" for name in names)


def _remote(url: str, use: Any) -> Any:
    """What `use` gives for the URL's file system and the name in it. Raises OSError and AudioError."""
    try:
        import fsspec
    except ImportError as e:
        raise OptionError(f"{url}: remote files need fsspec; pip install 'tilewhisper[ray]'") from e
    try:
        files, name = fsspec.core.url_to_fs(url)
        return use(files, name)
    except FileNotFoundError as e:
        raise AudioError(f"{url}: no such file") from e
    except (ImportError, ValueError) as e:  # a scheme whose package is not installed, or that nobody knows
        raise AudioError(f"{url}: {e}") from e
