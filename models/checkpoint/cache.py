"""A copy of a checkpoint that later starts map from disk: what reading, converting and checking it once came to.

A file is called `<name>-<where>-<what>.safetensors`, the last two digests:

- where: the paths of the checkpoint's files; copies of what they held before are cleared away by it
- what: their sizes and times, the hash they are known by, and the source of the code that reads them; so what is stale
  has another name and is not found

It holds the tensors as float32, so that nothing of them is read before it is used and processes share the memory, and
the tokenizer as JSON. It comes to its name whole or not at all; one that is cut short is noticed and made anew. Where
it cannot be written there is none, and starts are slower: no more than that is logged, as information.
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
from tilewhisper.models.checkpoint.locate import VOCABULARY_FILES, Source, locate
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

CACHE = Path("~/.cache/tilewhisper/models").expanduser()
BUDGET = 4 << 30
"""Bytes that all copies together may take; the oldest go first. base takes 290 MB, large-v3 more than all."""

ABANDONED = 3600.0
"""Seconds after which a file that is still being written is not."""

_FOLDERS = ("hf", "ctranslate2")  # kinds whose reader may look at any file of the folder
_SOURCES = Path(__file__).parent
_log = logging.getLogger(__name__)


def load(name_or_path: str | Path) -> Checkpoint:
    """What `checkpoint.load` gives, and raises, bit for bit; from the second time on out of the copy in `CACHE`."""
    source = locate(name_or_path)
    try:
        path = path_of(source)
    except OSError:  # gone since, or a folder that may not be listed: the reader has the words for it
        return loader.read(source)
    if kept := _read(path, source):
        return kept
    loaded = loader.read(source)
    if path_of(source) == path:  # else the files have changed meanwhile
        _keep(loaded, path)
    return loaded


def path_of(source: Source) -> Path:
    """Where the copy of a checkpoint is, if there is one, as its files are now."""
    where = _digest([source.kind, *(str(file.absolute()) for file in source.files)])
    what = _digest([source.sha256, _code(), *_states(source)])
    name = re.sub(r"[^\w.-]+", "-", source.name)[-60:]
    return CACHE / f"{name}-{where}-{what}.safetensors"


def _digest(generation_config: list[Any]) -> str:
    return hashlib.sha256(repr(generation_config).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """What reads checkpoints: this folder's source."""
    return _digest([(file.name, file.read_bytes()) for file in sorted(_SOURCES.rglob("*.py"))])


def _states(source: Source) -> Iterator[tuple[str, int, int, int]]:
    """Of each file a reader may look at: path, size, and when its content and its entry were last changed."""
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
        generation_config = _facts(about["facts"])
        return Checkpoint(
            source.name, source, modules.build(config, state, source.name), tokenizer, generation_config, mapped=True
        )
    except OSError:  # there is none
        return None
    except (SafetensorError, CheckpointError, KeyError, TypeError, ValueError) as error:
        _log.warning("%s is damaged and will be replaced (%s)", path, " ".join(str(error).split()))
        return None


def _parsed(text: torch.Tensor) -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_str(_text(text))


def _text(codes: torch.Tensor) -> str:
    return codes.numpy().tobytes().decode()


def _codes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _facts(stored: dict[str, Any]) -> GenerationConfig:
    return GenerationConfig(
        suppress_tokens=tuple(stored["suppress_tokens"]),
        begin_suppress_tokens=tuple(stored["begin_suppress_tokens"]),
        alignment_heads=tuple((layer, head) for layer, head in stored["alignment_heads"]),
        max_initial_timestamp_index=stored["max_initial_timestamp_index"],
    )


def _keep(loaded: Checkpoint, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = json.dumps({"config": asdict(loaded.model.config), "facts": asdict(loaded.generation_config)})
    tensors = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
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
        with suppress(FileNotFoundError):  # another process is clearing up, too
            _clear(path)
    except (OSError, SafetensorError) as error:
        _log.info("%s is not kept, so that later starts will be slower: %s", path, error)
    finally:
        if part:
            Path(part).unlink(missing_ok=True)


def _flush(part: str) -> None:
    """To the disk, before it gets its name: a name that survives a power cut must not stand for zeros."""
    with Path(part).open("rb") as file:
        os.fsync(file.fileno())


def _clear(path: Path) -> None:
    """Away with what this copy replaces, the oldest others beyond the budget, what killed writers left."""
    for part in path.parent.glob("*.part"):
        if time.time() - part.stat().st_mtime > ABANDONED:
            part.unlink(missing_ok=True)
    where = path.stem.rpartition("-")[0]
    others = [file for file in path.parent.glob("*.safetensors") if file != path]
    oldest_first = sorted(others, key=lambda file: file.stat().st_mtime)
    room = BUDGET - path.stat().st_size - sum(file.stat().st_size for file in others)
    for file in oldest_first:
        if room < 0 or file.stem.rpartition("-")[0] == where:
            room += file.stat().st_size
            file.unlink(missing_ok=True)
