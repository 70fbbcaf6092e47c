"""A memory-mapped cache of converted checkpoints, so that later starts skip conversion.

A cache file is named `<name>-<location>-<state>.safetensors`, where the last two parts are digests:

- location: the paths of the checkpoint's files; identifies older cache files of the same checkpoint, to delete them
- state: the files' sizes and times, their known hash, and the source code of the readers; a stale cache file has
  another name and is not found

A cache file has the tensors as float32, so that they are read from disk only when used and processes share the memory,
and the tokenizer as JSON. It is renamed into place when complete; a damaged file is detected and replaced. If the cache
cannot be written, later starts are slower, which is logged at level INFO.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tilewhisper.models.checkpoint import loader, modules
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.generation_config import GenerationConfig
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.locate import DEFAULT_HUB_USE, VOCABULARY_FILES, HubUse, Source, locate
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers


def _folder() -> Path:
    try:
        return Path("~/.cache/tilewhisper/models").expanduser()
    except RuntimeError:  # a user without a home: a path that cannot be created, so nothing is cached
        return Path(os.devnull, "models")


CACHE = _folder()
BUDGET = 4 << 30
"""Maximal total bytes of the cache; the oldest files are deleted first. base takes 290 MB; large-v3 exceeds it."""

ABANDONED = 3600.0
"""Seconds after which an unfinished file counts as left by a killed process."""

_FOLDERS = ("hf", "ctranslate2")  # kinds whose reader may open any file of the folder
_READERS = (Path(__file__).parent, Path(__file__).parents[1] / "tokenizer")
_log = logging.getLogger(__name__)


def load(name_or_path: str | Path | Source, hub_use: HubUse = DEFAULT_HUB_USE) -> Checkpoint:
    """Load a checkpoint, from the cache if it is there; results and errors are those of `loader.load`, bit for bit."""
    source = locate(name_or_path, hub_use)
    try:
        path = path_of(source)
    except OSError:  # files that vanished or a folder that cannot be listed: the reader's error explains it
        return loader.read(source)
    if cached := _read(path, source):
        return cached
    loaded = loader.read(source)
    if path_of(source) == path:  # otherwise, the files changed while they were read
        _write(loaded, path)
    return loaded


def path_of(source: Source) -> Path:
    """The cache file of a checkpoint in the current state of its files; it need not exist."""
    location = _digest([source.kind, *(str(file.absolute()) for file in source.files)])
    state = _digest([source.sha256, _code(), *_states(source)])
    name = re.sub(r"[^\w.-]+", "-", source.name, flags=re.ASCII)[-60:]  # 60 other letters may be 240 bytes
    return CACHE / f"{name}-{location}-{state}.safetensors"


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """A digest of the source code that reads checkpoints and tokenizers."""
    files = sorted(file for folder in _READERS for file in folder.rglob("*.py"))
    return _digest([(file.name, file.read_bytes()) for file in files])


def _states(source: Source) -> Iterator[tuple[str, int, int, int]]:
    """The state of each input file (path, size, mtime, ctime), for cache invalidation."""
    if source.kind in _FOLDERS:
        beside = [file for file in source.folder.iterdir() if file.is_file()]
    else:
        beside = [file for name in VOCABULARY_FILES if (file := source.folder / name).is_file()]
    for file in sorted({*source.files, *beside}):
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _read(path: Path, source: Source) -> Checkpoint | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        config = ModelConfig(**about["config"])
        vocabulary = json.loads(_text(state.pop("vocabulary")))
        tokenizer = Tokenizer(vocabulary, functools.partial(_parsed, state.pop("tokenizer")), config.vocab_size)
        generation_config = _generation_config(about["generation_config"])
        return Checkpoint(
            source.name, source, modules.build(config, state, source.name), tokenizer, generation_config, mapped=True
        )
    except OSError:  # not cached yet
        return None
    except (SafetensorError, CheckpointError, KeyError, TypeError, ValueError) as error:
        _log.warning("the cache file %s is damaged and will be replaced (%s)", path, " ".join(str(error).split()))
        return None


def _parsed(text: torch.Tensor) -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_str(_text(text))


def _text(codes: torch.Tensor) -> str:
    return codes.numpy().tobytes().decode()


def _codes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _generation_config(stored: dict[str, Any]) -> GenerationConfig:
    return GenerationConfig(
        suppress_tokens=tuple(stored["suppress_tokens"]),
        begin_suppress_tokens=tuple(stored["begin_suppress_tokens"]),
        alignment_heads=tuple((layer, head) for layer, head in stored["alignment_heads"]),
        max_initial_timestamp_index=stored["max_initial_timestamp_index"],
    )


def _write(loaded: Checkpoint, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = json.dumps({"config": asdict(loaded.model.config), "generation_config": asdict(loaded.generation_config)})
    tensors = {name: whole(tensor).contiguous() for name, tensor in loaded.model.state_dict().items()}
    by_id = sorted(loaded.tokenizer.vocabulary.items(), key=lambda item: item[1])
    tensors["vocabulary"] = _codes(json.dumps(dict(by_id)))
    tensors["tokenizer"] = _codes(loaded.tokenizer.to_json())
    if sum(tensor.nbytes for tensor in tensors.values()) > BUDGET:
        return
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".part", dir=path.parent)
        os.close(handle)
        save_file(tensors, part, metadata={"about": about})
        _flush(part)
        Path(part).replace(path)
        with suppress(FileNotFoundError):  # another process deletes files as well
            _delete_old(path)
    except (OSError, SafetensorError) as error:
        _log.info("the cache file %s could not be written, so later starts will be slower: %s", path, error)
    finally:
        if part:
            Path(part).unlink(missing_ok=True)


def _flush(part: str) -> None:
    """Flush to disk before the rename, so that after a power failure no cache file is full of zeros."""
    with Path(part).open("rb") as file:
        os.fsync(file.fileno())


def _delete_old(path: Path) -> None:
    """Delete older cache files of this checkpoint, the oldest others beyond `BUDGET`, and abandoned partial files."""
    for part in path.parent.glob("*.part"):
        if time.time() - part.stat().st_mtime > ABANDONED:
            part.unlink(missing_ok=True)
    name_and_location = path.stem.rpartition("-")[0]
    others = [file for file in path.parent.glob("*.safetensors") if file != path]
    oldest_first = sorted(others, key=lambda file: file.stat().st_mtime)
    free = BUDGET - path.stat().st_size - sum(file.stat().st_size for file in others)
    for file in oldest_first:
        if free < 0 or file.stem.rpartition("-")[0] == name_and_location:
            free += file.stat().st_size
            file.unlink(missing_ok=True)
