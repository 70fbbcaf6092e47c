"""Download from the Hugging Face hub and look up its cache: the only file that imports huggingface_hub.

Being offline is normal: the hub is asked once, within a deadline that includes name resolution, and never again.
huggingface_hub itself determines endpoint and token, and offline mode and cache where a model sets none of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants

DEADLINE = 1.5
"""Seconds the hub has to answer before it counts as unreachable."""

_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)


class Unavailable(Exception):  # noqa: N818 (never reaches the user: `locate` turns it into ModelNotFound)
    """The hub cannot provide a repository; the message is the reason, a clause without capital and period."""


def cached_folder(repository: str, cache: str | Path | None) -> Path | None:
    """The folder of a repository's main revision in a cache, or None; it may be incomplete. See `locate.HubUse`."""
    # Reads the cache's documented layout itself, because huggingface_hub's own function takes 0.4 s to import.
    cached = Path(_folder(cache), f"models--{repository.replace('/', '--')}")
    try:
        folder = cached / "snapshots" / (cached / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        return None
    return folder if (folder / "config.json").is_file() else None


def _folder(cache: str | Path | None) -> Path:
    return Path(cache or constants.HF_HUB_CACHE).expanduser().absolute()


def download(repository: str, weights: Sequence[str], cache: str | Path | None, *, offline: bool) -> Path:
    """Download a repository's configuration, tokenizer and weights into the cache and return the folder.

    The weights are the first name of `weights` that the repository has, else CTranslate2's model.bin. Raises
    Unavailable.
    """
    from huggingface_hub import snapshot_download

    if offline or constants.is_offline_mode():
        by = "local_files_only" if offline else "HF_HUB_OFFLINE"
        raise Unavailable(f"not in the cache, and {by} forbids downloads")
    files = _files(repository)
    chosen = next((name for name in (*weights, "model.bin") if name in files), None)
    if chosen is None:
        raise Unavailable(f"it has no weights of a known format: no {', '.join(weights)} or model.bin")
    # The shards of "model.safetensors.index.json" are "model-00001-of-00002.safetensors" and so on.
    stem, _, ending = chosen.removesuffix(".index.json").rpartition(".")
    shards = [f"{stem}-*-of-*.{ending}"] if chosen.endswith(".index.json") else []
    try:
        return Path(
            snapshot_download(repository, cache_dir=_folder(cache), allow_patterns=[*_SMALL_FILES, chosen, *shards])
        )
    except Exception as error:  # the errors of the hub, httpx and the file system have no common base class
        raise Unavailable(f"the download failed ({_one_line(error)})") from error


def _files(repository: str) -> set[str]:
    """Ask the hub for the names of the repository's files, within `DEADLINE`. Raises Unavailable."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    answer: list[set[str] | Exception] = []

    def ask() -> None:
        try:
            siblings = HfApi().model_info(repository, timeout=DEADLINE).siblings or []
            answer.append({file.rfilename for file in siblings})
        except Exception as error:
            answer.append(error)

    # A daemon thread, because name resolution has no timeout and must not delay the end of the program.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if not answer:
        raise Unavailable(f"{constants.ENDPOINT} did not answer within {DEADLINE} s; check the connection")
    if isinstance(answer[0], RepositoryNotFoundError):
        raise Unavailable("there is no such repository, or it needs a login (set HF_TOKEN)")
    if isinstance(answer[0], HfHubHTTPError):
        raise Unavailable(f"the hub refused ({_one_line(answer[0])})")
    if isinstance(answer[0], Exception):
        raise Unavailable(f"{constants.ENDPOINT} cannot be reached ({_one_line(answer[0])}); check the connection")
    return answer[0]


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:120]
