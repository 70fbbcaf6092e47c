"""A cache of loaded checkpoints, so that later starts read no more than they need.

    <name>-<location>-<state>.json     the content that a checkpoint's files have in this state
    <content>/checkpoint.safetensors   its configuration, tokenizer, biases and norms
    <content>/packed-….safetensors     matrices as backends take them: see packed_weights.py

The first three are digests: of the files' paths; of their sizes and times, their known hash, and the source code of the
readers; of the files' bytes and that code. So a changed file is never served stale, and a checkpoint that was moved or
downloaded again finds its packed weights. Matrices in the file's own precision stay in the checkpoint's own files, from
which they are read when something needs them (stored_tensor.py).

A damaged file is detected and replaced. If the cache cannot be written, later starts are slower.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilewhisper.models.checkpoint import formats, loader, modules
from tilewhisper.models.checkpoint.cache_folder import CACHE
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.generation_config import GenerationConfig
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.locate import DEFAULT_HUB_USE, VOCABULARY_FILES, HubUse, Source, locate
from tilewhisper.models.checkpoint.packed_weights import PackedWeights
from tilewhisper.models.checkpoint.stored_tensor import Deferred, Storage, StoredTensor
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.memory import release_freed
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

_FOLDERS = ("hf", "ctranslate2")  # kinds whose reader may open any file of the folder
_READERS = (Path(__file__).parent, Path(__file__).parents[1] / "tokenizer")
_BETWEEN_NAMES = "\0"
"""Of tokens, 50,000 of which it splits in 1 ms (JSON: 20). A vocabulary that has it in a name is not cached."""
_log = logging.getLogger(__name__)


def load(name_or_path: str | Path | Source, hub_use: HubUse = DEFAULT_HUB_USE) -> Checkpoint:
    """Load a checkpoint, from the cache if it is there; results and errors are those of `loader.load`, bit for bit."""
    source = locate(name_or_path, hub_use)
    try:
        state = state_file(source)
    except OSError:  # files that vanished or a folder that cannot be listed: the reader's error explains it
        return loader.read(source)
    if (content := _known_content(state)) and (cached := _read(content, source)):
        return cached
    loaded = loader.read(source)
    content = _content(source)
    if state_file(source) != state:  # the files changed while they were read
        return loaded
    if not _write(loaded, content):
        return loaded
    _forget_other_states(state)
    CACHE.write_text(state, json.dumps({"content": content, "name": source.name}))
    cached = _read(content, source)  # without what only reading needed: the tokenizer library's own takes 40 MB
    if cached is None:
        return replace(loaded, packed=PackedWeights(content))
    del loaded
    release_freed()
    return cached


def state_file(source: Source) -> str:
    """The name of the file that says which content a checkpoint's files have in their current state."""
    location = _digest([source.kind, *(str(file.absolute()) for file in source.files)])
    state = _digest([source.sha256, _code(), *_states(source)])
    name = re.sub(r"[^\w.-]+", "-", source.name, flags=re.ASCII)[-60:]  # 60 other letters may be 240 bytes
    return f"{name}-{location}-{state}.json"


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """A digest of the source code that reads checkpoints and tokenizers."""
    files = sorted(file for folder in _READERS for file in folder.rglob("*.py"))
    return _digest([(file.name, file.read_bytes()) for file in files])


def _states(source: Source) -> Iterator[tuple[str, int, int, int]]:
    """The state of each input file (path, size, mtime, ctime), for cache invalidation."""
    for file in sorted({*source.files, *_beside(source)}):
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _beside(source: Source) -> list[Path]:
    """The files besides the weights that a reader may open."""
    if source.kind in _FOLDERS:
        return [file for file in source.folder.iterdir() if file.is_file()]
    return [file for name in VOCABULARY_FILES if (file := source.folder / name).is_file()]


def _content(source: Source) -> str:
    """A digest of what a reader reads. `loader.read` has compared a known hash of the weights with the files."""
    weights = [source.sha256] if source.sha256 else [_hash(file) for file in source.files]
    others = sorted(set(_beside(source)) - set(source.files))
    names = source.folder.name, source.files[0].stem  # which some readers recognise
    return _digest([source.kind, names, _code(), weights, [(file.name, _hash(file)) for file in others]])


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _known_content(state: str) -> str | None:
    try:
        content = json.loads((CACHE.path / state).read_text("utf-8"))["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if isinstance(content, str) and re.fullmatch(r"[0-9a-f]{16}", content) else None


def _forget_other_states(state: str) -> None:
    """Delete what is known of the same files in other states."""
    location = state.rpartition("-")[0]
    for file in CACHE.path.glob(f"{location}-*.json"):
        if file.name != state:
            file.unlink(missing_ok=True)


def _read(content: str, source: Source) -> Checkpoint | None:
    from safetensors import SafetensorError, safe_open

    path = CACHE.path / content / "checkpoint.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            # Copies, so that nothing depends on the file any more.
            stored = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
        config = ModelConfig(**about["config"])
        names, ids = _bytes(stored.pop("vocabulary")).decode().split(_BETWEEN_NAMES), stored.pop("vocabulary_ids")
        vocabulary = dict(zip(names, ids.tolist(), strict=True))
        tokenizer = Tokenizer(vocabulary, functools.partial(_parsed, stored.pop("tokenizer")), config.vocab_size)
        tensors = functools.cache(functools.partial(formats.tensors, source))  # mapped as long as a matrix is there
        state = stored | {name: _in_file(tensors, name, tuple(shape)) for name, shape in about["matrices"].items()}
        CACHE.used(path)
        return Checkpoint(
            source.name,
            source,
            modules.build(config, state, source.name),
            tokenizer,
            _generation_config(about["generation_config"]),
            packed=PackedWeights(content),
        )
    except OSError:  # not cached yet
        return None
    except (SafetensorError, CheckpointError, KeyError, TypeError, ValueError, zlib.error) as error:
        _log.warning("the cache file %s is damaged and will be replaced (%s)", path, " ".join(str(error).split()))
        return None


def _in_file(tensors: Callable[[], Mapping[str, Tensor]], name: str, shape: tuple[int, ...]) -> StoredTensor:
    """A matrix of a checkpoint; `tensors` opens the files, when the first of them is used."""

    def opened() -> Storage:
        weight = tensors()[name]
        assert isinstance(weight, StoredTensor)
        return weight.stored.part(0, shape[0])  # the file may have more tokens than are used

    return StoredTensor(Deferred(shape, opened))


def _parsed(packed: Tensor) -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_str(zlib.decompress(_bytes(packed)).decode())


def _bytes(stored: Tensor) -> bytes:
    return stored.numpy().tobytes()


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _generation_config(stored: dict[str, Any]) -> GenerationConfig:
    return GenerationConfig(
        suppress_tokens=tuple(stored["suppress_tokens"]),
        begin_suppress_tokens=tuple(stored["begin_suppress_tokens"]),
        alignment_heads=tuple((layer, head) for layer, head in stored["alignment_heads"]),
        max_initial_timestamp_index=stored["max_initial_timestamp_index"],
    )


def _write(loaded: Checkpoint, content: str) -> bool:
    state = loaded.model.state_dict(keep_vars=True)  # to detach a StoredTensor would import torch.distributed
    matrices = {name: list(weight.shape) for name, weight in state.items() if isinstance(weight, StoredTensor)}
    about = {
        "name": loaded.name,
        "config": asdict(loaded.model.config),
        "generation_config": asdict(loaded.generation_config),
        "matrices": matrices,
    }
    tensors = {name: tensor.contiguous() for name, tensor in state.items() if name not in matrices}
    vocabulary = loaded.tokenizer.vocabulary
    if any(_BETWEEN_NAMES in name for name in vocabulary):
        return False
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    tensors["vocabulary"] = _as_tensor(_BETWEEN_NAMES.join(names).encode())
    tensors["vocabulary_ids"] = torch.tensor([vocabulary[name] for name in names], dtype=torch.int32)
    tensors["tokenizer"] = _as_tensor(zlib.compress(loaded.tokenizer.to_json().encode(), 6))
    return CACHE.write(f"{content}/checkpoint.safetensors", tensors, {"about": json.dumps(about)})
