"""Servers on loopback for the tests: uvicorn in a thread, on a model that all of them share."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import uvicorn

from tilewhisper.engine.serving.app import create_app
from tilewhisper.engine.serving.server import Server
from tilewhisper.engine.serving.settings import ServerSettings


class Lent:
    """A model that a server must not close, because other servers use it too."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def close(self) -> None:
        pass

    def start_loop(self) -> None:
        pass


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    url: str

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def openai(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 60} | options
        )

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


@contextmanager
def running(load: Callable[..., Any], **settings: Any) -> Iterator[Running]:
    """A server with these settings, stopped at the end."""
    app = create_app(ServerSettings(**{"models": ("tiny.en",)} | settings), load=load)
    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        host, port = listener.getsockname()
        yield Running(app.state.server, f"http://{host}:{port}")
    finally:
        web.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not stop"


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
