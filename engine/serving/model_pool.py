"""The models of a server: loaded on first use, shared by all requests, unloaded when idle."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.engine.whisper_model import WhisperModel


@dataclass(frozen=True)
class Served:
    """One model under one policy; requests that name the same share it."""

    name: str
    backends: tuple[str, ...]
    """Overrides on top of the server's policy."""


class ModelPool:
    """Loaded models by name and overrides. All methods may be called from any thread."""

    def __init__(self, settings: ServerSettings, load: Callable[..., WhisperModel] = WhisperModel) -> None:
        self._settings, self._load = settings, load
        self._change = threading.Lock()
        self._models: dict[Served, WhisperModel] = {}

    @contextmanager
    def lease(self, name: str, backends: Sequence[str] = ()) -> Iterator[WhisperModel]:
        """The model of this name, not unloaded while the context lasts; `backends` are further overrides.

        Raises ModelsError, KernelError and EngineError.
        """
        served = Served(name, (*self._settings.backends, *backends))
        with self._change:
            if served not in self._models:
                self._models[served] = self._load(
                    served.name,
                    policy=self._settings.policy,
                    backends=served.backends,
                    settings=self._settings.kernels,
                )
            model = self._models[served]
        yield model

    def close(self) -> None:
        """Unload all models."""
        with self._change:
            for model in self._models.values():
                model.close()
            self._models.clear()
