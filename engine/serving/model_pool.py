"""The models of a server: loaded on first use, shared by all requests, unloaded when idle or when memory is short."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from tilewhisper.engine.errors import USER_ERRORS, PolicyError
from tilewhisper.engine.serving.errors import RequestError, shutting_down
from tilewhisper.engine.serving.model_names import ModelNames
from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels.base import KernelError
from tilewhisper.models.checkpoint.locate import locate

_log = logging.getLogger(__name__)


class ModelState(StrEnum):
    """Where a served model is."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Served:
    """One model under one policy; requests that name the same share it."""

    name: str
    backends: tuple[str, ...]
    """Overrides on top of the server's policy."""


@dataclass
class _Entry:
    loading: Future[WhisperModel]
    bytes: int
    """Of its weights: of their files until it is loaded."""
    users: int = 0
    last_use: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> ModelState:
        if not self.loading.done():
            return ModelState.LOADING
        return ModelState.FAILED if self.loading.exception() else ModelState.READY


class ModelPool:
    """Loaded models by name and overrides. All methods may be called from any thread."""

    def __init__(self, settings: ServerSettings, load: Callable[..., WhisperModel]) -> None:
        """Raises OptionError where two models have the same name."""
        self.names = ModelNames(settings.models)
        self._settings, self._load = settings, load
        self._change = threading.Lock()
        self._entries: dict[Served, _Entry] = {}
        self._failed: set[Served] = set()
        self._closed = False
        # One thread loads and unloads, so that a load waits for the memory of the model that makes room for it.
        self._loader = ThreadPoolExecutor(1, "tilewhisper-loader")

    @contextmanager
    def lease(self, name: str, backends: Sequence[str] = ()) -> Iterator[WhisperModel]:
        """The model that a name stands for, not unloaded while the context lasts; waits while it is loaded.

        `backends` are further overrides. Raises RequestError.
        """
        served, entry = self._enter(name, backends)
        try:
            yield self._loaded(served, entry.loading.result)
        finally:
            self._leave(entry)

    @asynccontextmanager
    async def leased(self, name: str, backends: Sequence[str] = ()) -> AsyncIterator[WhisperModel]:
        """`lease` for the event loop."""
        served, entry = self._enter(name, backends)
        try:
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            # Not asyncio.wrap_future: a client that leaves would cancel the loading that others wait for.
            entry.loading.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
            await done.wait()
            yield self._loaded(served, entry.loading.result)
        finally:
            self._leave(entry)

    def state(self, name: str) -> ModelState:
        """The state of a served model without further overrides."""
        with self._change:
            served = Served(name, self._settings.backends)
            if entry := self._entries.get(served):
                return entry.state
            return ModelState.FAILED if served in self._failed else ModelState.UNLOADED

    def loaded(self) -> dict[str, WhisperModel]:
        """The models that are ready, by name; without those that have further overrides."""
        with self._change:
            return {
                served.name: entry.loading.result()
                for served, entry in self._entries.items()
                if served.backends == self._settings.backends and entry.state is ModelState.READY
            }

    @property
    def count(self) -> int:
        """Models that are loaded or being loaded, under all overrides."""
        return len(self._entries)

    def unload_idle(self) -> None:
        """Unload the models that nobody has used for `unload_after` seconds."""
        limit = self._settings.unload_after
        if limit is None:
            return
        now = time.monotonic()
        with self._change:
            for served, entry in self._idle():
                if now - entry.last_use >= limit:
                    self._unload(served)

    def close(self) -> None:
        """Unload all models; every later use is refused."""
        with self._change:
            self._closed = True
            entries = [*self._entries.values()]
            self._entries.clear()
        self._loader.shutdown(cancel_futures=True)
        for entry in entries:
            _close(entry.loading)

    def _enter(self, name: str, backends: Sequence[str]) -> tuple[Served, _Entry]:
        served = Served(self.names.resolve(name), (*self._settings.backends, *backends))
        with self._change:
            if self._closed:
                raise shutting_down()
            entry = self._entries.get(served)
            if entry is None:
                if backends:
                    self._unload_variants()
                size = self._weight_bytes(served)
                self._make_room(served, size)
                entry = _Entry(self._loader.submit(self._load_model, served), size)
                self._entries[served] = entry
            entry.users += 1
            return served, entry

    def _leave(self, entry: _Entry) -> None:
        with self._change:
            entry.users -= 1
            entry.last_use = time.monotonic()

    def _loaded(self, served: Served, result: Callable[[], WhisperModel]) -> WhisperModel:
        """The loaded model. Raises RequestError where it could not be loaded."""
        try:
            return result()
        except (PolicyError, KernelError) as error:
            if served.backends == self._settings.backends:
                raise _not_loaded(served, error) from error
            raise RequestError(400, str(error), param="backends", code="unsupported_backend") from error
        except Exception as error:
            raise _not_loaded(served, error) from error

    def _load_model(self, served: Served) -> WhisperModel:
        try:
            model = self._load(
                self.names.sources[served.name],
                policy=self._settings.policy,
                backends=served.backends,
                settings=self._settings.kernels,
            )
            model.start_loop()
        except BaseException as error:
            # The next request tries again.
            with self._change:
                self._entries.pop(served, None)
                self._failed.add(served)
            _log.error("the model %s cannot be loaded: %s", served.name, error)
            raise
        with self._change:
            self._failed.discard(served)
            if entry := self._entries.get(served):
                entry.bytes = model.runtime.weight_bytes
                self._unload_surplus(0)
        return model

    def _weight_bytes(self, served: Served) -> int:
        """The size of a model's files, which is what is known before it is loaded."""
        if self._settings.memory_limit is None:
            return 0
        try:
            return sum(file.stat().st_size for file in locate(self.names.sources[served.name]).files)
        except (*USER_ERRORS, OSError):
            return 0  # loading it will say why

    def _make_room(self, served: Served, size: int) -> None:
        """Unload idle models until `size` bytes fit. Raises RequestError where they do not."""
        limit = self._settings.memory_limit
        if limit is None:
            return
        if size > limit:
            raise RequestError(
                503,
                f"the model {served.name} takes {_megabytes(size)}, and the memory limit of this server is "
                f"{_megabytes(limit)}",
                param="model",
                code="memory_limit",
                headers={"x-should-retry": "false"},
            )
        self._unload_surplus(size)
        if self._used() + size > limit:
            raise RequestError(
                503,
                f"the model {served.name} has to wait: other models are in use, and all together exceed the memory "
                f"limit of this server, {_megabytes(limit)}",
                param="model",
                code="memory_limit",
                headers={"Retry-After": "10"},
            )

    def _unload_surplus(self, size: int) -> None:
        """Unload idle models, the least recently used first, until `size` bytes more are within the limit."""
        limit = self._settings.memory_limit
        idle = sorted(self._idle(), key=lambda item: item[1].last_use)
        while limit is not None and idle and self._used() + size > limit:
            self._unload(idle.pop(0)[0])

    def _unload_variants(self) -> None:
        """Unload the idle models with further overrides: each takes the memory of a model, for one caller's trial."""
        for served, _ in self._idle():
            if served.backends != self._settings.backends:
                self._unload(served)

    def _used(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def _idle(self) -> list[tuple[Served, _Entry]]:
        return [
            (served, entry)
            for served, entry in self._entries.items()
            if not entry.users and entry.state is ModelState.READY
        ]

    def _unload(self, served: Served) -> None:
        self._loader.submit(_close, self._entries.pop(served).loading)


def _not_loaded(served: Served, error: Exception) -> RequestError:
    return RequestError(
        500,
        f"the model {served.name} cannot be loaded ({type(error).__name__}); the server's log has the reason",
        param="model",
        code="model_not_loaded",
    )


def _close(loading: "Future[WhisperModel]") -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.0f} MB"
