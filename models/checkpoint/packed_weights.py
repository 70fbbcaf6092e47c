"""Matrices of one checkpoint as backends take them, memory-mapped from the cache.

A model's folder in the cache has one file for each load that had to pack weights, with just those: the policies of a
model share what is equal. A weight's name says which form it has, so that other backends or other versions of their
kernels never find it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tilewhisper.models.checkpoint.cache_folder import CACHE

_log = logging.getLogger(__name__)


class PackedWeights:
    """The packed weights of one checkpoint. Not thread-safe."""

    def __init__(self, content: str) -> None:
        """`content` is the name of the checkpoint's folder in the cache."""
        self._content = content
        self._new: dict[str, Mapping[str, Tensor]] = {}
        self._files: dict[str, dict[str, Any]] | None = None
        """For each packed weight the open file of each of its parts; None until they are looked for."""

    def get(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of a packed weight, mapped, or None where the cache does not have it."""
        if self._files is None:
            self._files = self._open_files()
        files = self._files.get(name)
        return None if files is None else {part: file.get_tensor(f"{name}/{part}") for part, file in files.items()}

    def add(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Have a packed weight stored by the next `save`."""
        self._new[name] = tensors

    def save(self) -> bool:
        """Store what was added, in one file of its own; whether there was something and `get` finds it now."""
        if not self._new:
            return False
        tensors = {f"{name}/{part}": tensor for name, parts in self._new.items() for part, tensor in parts.items()}
        names = hashlib.sha256("\n".join(sorted(self._new)).encode()).hexdigest()[:16]
        stored = CACHE.write(f"{self._content}/packed-{names}.safetensors", tensors, {})
        self._new.clear()
        self._files = None
        return stored

    def _open_files(self) -> dict[str, dict[str, Any]]:
        from safetensors import SafetensorError, safe_open

        found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for path in sorted((CACHE.path / self._content).glob("packed-*.safetensors")):
            try:
                file: Any = safe_open(path, framework="pt")
                for key in file.keys():  # noqa: SIM118 (no mapping)
                    name, _, part = key.rpartition("/")
                    found[name][part] = file
            except OSError:  # deleted by another process
                continue
            except SafetensorError as error:
                _log.warning("the cache file %s is damaged and will be replaced (%s)", path, error)
                path.unlink(missing_ok=True)
                continue
            CACHE.used(path)
        return dict(found)
