"""Write a checkpoint in the formats of other engines: a table of writers, and the one function that uses it.

A writer is a module with `write(model, folder, precision)`. It reads the parameters one at a time and writes each
before it reads the next, so that converting takes little memory for any size. To add a format, write one module and
add one entry to `FORMATS`; the command, its help and the tests follow from the table.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tilewhisper.models.errors import ExportError

if TYPE_CHECKING:
    from tilewhisper.models.checkpoint.export.model import OnRead
    from tilewhisper.models.checkpoint.loader import Checkpoint


@dataclass(frozen=True)
class Format:
    """A format that can be written.

    `engines` are programs that load it. `precisions` are the values of `write`'s argument, the default first.
    `packages` are those that writing needs; a pip extra with the format's name installs them.
    """

    writer: str
    engines: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()


_WRITERS = "tilewhisper.models.checkpoint.export"
FORMATS: Mapping[str, Format] = {
    "ctranslate2": Format(
        f"{_WRITERS}.ctranslate2",
        "CTranslate2, faster-whisper",
        (
            *("float16", "float32", "bfloat16", "int16"),
            *("int8", "int8_float32", "int8_float16", "int8_bfloat16"),
        ),
    ),
    "ggml": Format(f"{_WRITERS}.ggml", "whisper.cpp", ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")),
    "openai": Format(f"{_WRITERS}.openai", "openai-whisper", ("float16", "float32")),
    "transformers": Format(
        f"{_WRITERS}.transformers", "Hugging Face's transformers", ("float16", "float32", "bfloat16")
    ),
    "onnx": Format(f"{_WRITERS}.onnx", "ONNX Runtime, optimum", ("float32", "float16", "int8"), ("onnx",)),
    "openvino": Format(
        f"{_WRITERS}.openvino",
        "OpenVINO GenAI",
        ("float16", "float32", "int8"),
        ("onnx", "openvino", "openvino_tokenizers"),
    ),
}


def write(
    checkpoint: Checkpoint,
    kind: str,
    folder: str | Path,
    precision: str | None = None,
    on_read: OnRead | None = None,
) -> tuple[Path, ...]:
    """Write a checkpoint into a new or empty folder as one of `FORMATS`; the files, sorted.

    `precision` is one of the format's, by default its first. The files appear when all of them are complete. Raises
    ExportError for an unknown format or precision, a folder that cannot be written or has files, and a model that the
    format cannot express.
    """
    from tilewhisper.models.checkpoint.export.model import ExportedModel  # imports torch

    form, precision = check(kind, precision)
    target = check_folder(folder)
    model = ExportedModel(checkpoint, on_read)
    try:
        place = target if target.exists() else target.parent
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".unfinished-") as unfinished:
            made = Path(unfinished, "model")
            made.mkdir()
            import_module(form.writer).write(model, made, precision)
            _publish(made, target)
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror or error}") from error
    return tuple(sorted(Path(folder).iterdir()))


def check(kind: str, precision: str | None) -> tuple[Format, str]:
    """A format and its precision, by name. Raises ExportError for unknown ones, and where a package is missing."""
    form = FORMATS.get(kind)
    if form is None:
        raise ExportError(f"unknown format {kind!r}: the formats are {', '.join(FORMATS)}")
    if precision is not None and precision not in form.precisions:
        raise ExportError(f"{kind} has no precision {precision!r}: its precisions are {', '.join(form.precisions)}")
    for package in form.packages:
        if not find_spec(package):
            raise ExportError(f"{kind} needs the package {package}: pip install 'tilewhisper[{kind}]'")
    return form, precision or form.precisions[0]


def check_folder(folder: str | Path) -> Path:
    """The real path of a folder to write to. Raises ExportError for a file and for a folder with files in it."""
    target = Path(os.path.realpath(folder))
    try:
        if file := next((path for path in (target, *target.parents) if path.exists() and not path.is_dir()), None):
            raise ExportError(f"cannot write {folder}: {file} is a file; give a new or empty folder")
        if target.exists() and (first := next(target.iterdir(), None)):
            raise ExportError(
                f"cannot write {folder}: it is not empty (it has {first.name}); give a new or empty folder"
            )
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror}") from error
    return target


def _publish(made: Path, target: Path) -> None:
    """Move the finished files to their place; an existing folder stays, since it may be a mount point."""
    if not target.exists():
        made.rename(target)
        return
    for file in sorted(made.iterdir()):
        file.rename(target / file.name)
