"""Rows as Parquet files of a fixed schema."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tilewhisper.engine.bulk.formats import RowFormat
from tilewhisper.engine.bulk.rows import Row
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.files import temporary_beside

PART_ROWS = 10_000
"""Of a file: some 100 MB of rows in memory."""


class ParquetFiles(RowFormat):
    """`rows-00000.parquet` and so on, written when all rows are done."""

    def __init__(self, folder: Path) -> None:
        """Raises OptionError without pyarrow."""
        pyarrow()
        self._folder = folder

    def finish(self, rows: Iterable[Row]) -> None:
        iterator = iter(rows)
        names: list[str] = []
        while part := list(islice(iterator, PART_ROWS)):
            names.append(f"rows-{len(names):05}.parquet")
            self._write(names[-1], part)
        for old in self._folder.glob("rows-*.parquet"):
            if old.name not in names:
                old.unlink()

    def _write(self, name: str, rows: list[Row]) -> None:
        pa = pyarrow()
        path = self._folder / name
        new = temporary_beside(path)
        try:
            pa.parquet.write_table(pa.Table.from_pylist([_encodable(row) for row in rows], _schema(pa)), new)
            new.replace(path)
        except OSError as e:
            new.unlink(missing_ok=True)
            raise OptionError(f"cannot write {path}: {e.strerror or e}") from e


def _encodable(row: Row) -> dict[str, Any]:
    """Half a surrogate pair, which a file name of other bytes than UTF-8 has, becomes a question mark."""
    fields = row.to_json()
    return {**fields, **{name: _utf8(fields[name]) for name in ("path", "error")}, "asked": list(map(_utf8, row.asked))}


def _utf8(text: str | None) -> str | None:
    return text and text.encode("utf-8", "replace").decode()


def pyarrow() -> Any:
    """The package, with its Parquet module. Raises OptionError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise OptionError("Parquet needs pyarrow: pip install 'tilewhisper[parquet]'") from e
    return pyarrow


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dicts. Raises OSError."""
    pa = pyarrow()
    try:
        for batch in pa.parquet.ParquetFile(path).iter_batches(batch_size=PART_ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, ValueError) as e:
        raise OSError(f"not Parquet, or damaged: {e}") from e


def _schema(pa: Any) -> Any:
    word = pa.struct({"word": pa.string(), "start": pa.float64(), "end": pa.float64(), "probability": pa.float64()})
    segment = pa.struct(
        {
            "id": pa.int32(),
            "seek": pa.int32(),
            "start": pa.float64(),
            "end": pa.float64(),
            "text": pa.string(),
            "tokens": pa.list_(pa.int32()),
            "temperature": pa.float64(),
            "avg_logprob": pa.float64(),
            "compression_ratio": pa.float64(),
            "no_speech_prob": pa.float64(),
            "words": pa.list_(word),
        }
    )
    return pa.schema(
        {
            "path": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "asked": pa.list_(pa.string()),
            "id": pa.string(),
            "sha256": pa.string(),
            "size": pa.int64(),
            "version": pa.string(),
            "text": pa.string(),
            "segments": pa.list_(segment),
            "language": pa.string(),
            "language_probability": pa.float64(),
            "seconds": pa.float64(),
            "work_seconds": pa.float64(),
            "cpu_seconds": pa.float64(),
            "rtf": pa.float64(),
            "backends": pa.list_(pa.string()),
            "workers": pa.list_(pa.string()),
            "damage": pa.string(),
            "error": pa.string(),
        }
    )
