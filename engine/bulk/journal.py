"""A file of JSON lines that grows by whole lines, whatever happens to its writer."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.files import temporary_beside

Record = TypeVar("Record")


class Journal:
    """Lines that were written stay. A line that a crash or a full disk cut short is removed."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises OptionError."""
        self.path = path
        self._file = self._opened()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines so far. Raises OptionError for a line that is no JSON object."""
        return self.records(dict)

    def records(self, make: Callable[[Any], Record]) -> Iterator[Record]:
        """What `make` gives for each line so far. Raises OptionError for a line of which it makes nothing."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = make(json.loads(line))
                except (ValueError, TypeError, KeyError) as e:
                    raise OptionError(
                        f"{self.path}: line {number} is damaged: {e}; remove it to have it done again"
                    ) from e
                yield record

    @property
    def empty(self) -> bool:
        return self._file.seek(0, os.SEEK_END) == 0

    def append(self, fields: Mapping[str, Any]) -> None:
        """Raises OptionError where there is no space, and leaves the file as it was."""
        # Half a surrogate pair, which a file name of other bytes than UTF-8 has, stays as its JSON escape.
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as e:
            self._file.truncate(end)
            raise OptionError(f"cannot write {self.path}: {e.strerror}") from e

    def rewrite(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace all lines; the old ones stay until the new ones are complete. Raises OptionError."""
        new = temporary_beside(self.path)
        try:
            with closing(Journal(new)) as other:
                for fields in lines:
                    other.append(fields)
            new.replace(self.path)
        except OSError as e:
            raise OptionError(f"cannot write {self.path}: {e.strerror}") from e
        finally:
            new.unlink(missing_ok=True)
        self._file.close()
        self._file = self._opened()

    def close(self) -> None:
        self._file.close()

    def _opened(self) -> FileIO:
        """Raises OptionError."""
        try:
            file = FileIO(self.path, "a+")
            file.truncate(_whole_lines(self.path))
        except OSError as e:
            raise OptionError(f"cannot write {self.path}: {e.strerror}") from e
        return file


def _whole_lines(path: Path) -> int:
    """The size of the file up to its last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
