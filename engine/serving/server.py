"""The state that all front ends of one server share."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import HTTPConnection

from tilewhisper.engine.serving.admission import Admission
from tilewhisper.engine.serving.errors import shutting_down
from tilewhisper.engine.serving.metrics import Metrics
from tilewhisper.engine.serving.model_pool import ModelPool, ModelState
from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.engine.serving.threads import Threads
from tilewhisper.engine.serving.work import Work
from tilewhisper.engine.whisper_model import WhisperModel


class Server:
    """What the routes of one application share; they find it as `request.app.state.server`."""

    def __init__(self, settings: ServerSettings, load: Callable[..., WhisperModel]) -> None:
        """`load` makes a model, as WhisperModel does. Raises OptionError."""
        self.settings = settings
        self.pool = ModelPool(settings, load)
        self.admission = Admission(settings)
        self.threads = Threads(settings.max_running)
        self.metrics = Metrics()
        self.metrics.watch(self.admission, self.pool)
        self.policy_name = Path(settings.policy).stem
        """A policy file is known by its name alone: answers have no paths."""
        self.started = int(time.time())
        self.works: set[Work] = set()
        """Transcriptions under way."""
        self.shutting_down = asyncio.Event()

    @property
    def status(self) -> str:
        """loading, ready, failed (the default model) or stopping."""
        if self.shutting_down.is_set():
            return "stopping"
        state = self.pool.state(self.pool.names.default)
        return str(state if state in (ModelState.LOADING, ModelState.FAILED) else ModelState.READY)

    def begin_shutdown(self) -> None:
        """Refuse everything new, and end what still runs after the time that the settings allow."""
        self.shutting_down.set()
        self.admission.closed = True
        asyncio.get_running_loop().call_later(self.settings.shutdown_seconds, self.stop_all)

    def stop_all(self) -> None:
        """End the transcriptions under way."""
        for work in [*self.works]:
            work.stop(shutting_down())


def server_of(connection: HTTPConnection) -> Server:
    """The server of a request or WebSocket."""
    server: Server = connection.app.state.server
    return server
