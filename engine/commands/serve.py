"""`tilewhisper serve`: answer HTTP requests until the process is told to stop."""

import importlib
import logging
import re
import socket
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM, signal
from types import FrameType
from typing import TYPE_CHECKING

from tilewhisper.engine.commands import npu
from tilewhisper.engine.commands.screen import console, say, showing_warnings
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.checkpoint import default
from tilewhisper.models.checkpoint.locate import locate

if TYPE_CHECKING:
    from tilewhisper.engine.serving.settings import ServerSettings

_PACKAGES = ("fastapi", "uvicorn", "websockets", "python_multipart", "prometheus_client", "wyoming", "onnxruntime")
_WYOMING = re.compile(r"tcp://[^/]+:\d+|unix://.+")
_MEGABYTE = 2**20
_LOOPBACK = ("127.", "::1", "localhost")
_PING_SECONDS = 120
"""Time for the answer to a WebSocket's ping: it waits behind the audio that a client has sent ahead."""
_AFTER_SHUTDOWN_SECONDS = 5
"""Time for the answers of requests that were ended, before their connections are cut."""


def run(args: Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Raises OptionError, ModelsError and EngineError before it listens."""
    _check_packages()
    settings = _settings(args)
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    screen = console(stderr=True)
    with _listening(args.host, args.port) as listener, showing_warnings(screen):
        if not settings.api_keys and not args.host.startswith(_LOOPBACK):
            say(screen, f"tilewhisper: warning: {_OPEN.format(host=args.host)}")
        return _serve(settings, listener)


_OPEN = (
    "--host {host} can be reached by other machines, and no key is asked for; give --api_key_file, or put a proxy with "
    "authentication in front"
)


def _check_packages() -> None:
    """Raise OptionError where the packages of the extra are missing."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise OptionError(f"serve needs {name}: pip install 'tilewhisper[serve]'") from error


def _settings(args: Namespace) -> "ServerSettings":
    """What the flags ask for, checked as far as it is possible before anything is loaded."""
    from tilewhisper.engine.serving import auth
    from tilewhisper.engine.serving.model_names import ModelNames
    from tilewhisper.engine.serving.settings import ServerSettings

    models = tuple(args.model) or (default.default_model().name,)
    ModelNames(models)
    for model in models:
        locate(model)
    load_policy(args.policy).with_overrides(args.backend)
    if args.wyoming and not _WYOMING.fullmatch(args.wyoming):
        raise OptionError(f"--wyoming must be tcp://HOST:PORT or unix://PATH, got {args.wyoming}")
    return ServerSettings(
        models=models,
        policy=args.policy,
        backends=tuple(args.backend),
        beam_size=args.beam_size,
        kernels=npu.settings(args),
        api_keys=auth.read_keys(args.api_key_file) if args.api_key_file else (),
        cors_origins=tuple(args.cors_origin),
        unload_after=args.unload_after,
        memory_limit=None if args.memory_limit is None else int(args.memory_limit * _MEGABYTE),
        max_upload_bytes=int(args.max_upload_mb * _MEGABYTE),
        max_audio_seconds=args.max_audio_minutes * 60,
        max_waiting=args.max_waiting,
        request_seconds=args.request_timeout,
        wyoming=args.wyoming,
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises OptionError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise OptionError(f"--host {host}: is no address of this machine ({error})") from error
    family, kind, protocol, _, address = found[0]
    # Where the protocol is not named, asyncio leaves TCP_NODELAY off, and each answer waits 40 ms for the client's ACK.
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            raise OptionError(
                f"cannot listen at {host}, port {port}: {error.strerror}; choose another --port, or 0 for a free one"
            ) from error
        yield listener


def _serve(settings: "ServerSettings", listener: socket.socket) -> int:
    """Serve on a socket until a signal, or until the default model turns out not to load. Returns the exit status."""
    import uvicorn

    from tilewhisper.engine.serving.app import create_app

    class WebServer(uvicorn.Server):
        """uvicorn, but running requests get time to finish, and a signal ends the process with status 0."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.server.begin_shutdown()
            await super().shutdown(sockets)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal(number, self.handle_exit) for number in (SIGINT, SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal(number, handler)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # A second signal does not wait for running requests.
            self.force_exit, self.should_exit = self.should_exit, True

    failed = threading.Event()

    def stop() -> None:
        failed.set()
        web.should_exit = True

    app = create_app(settings, on_failure=stop)
    # It warns of every malformed body, which the client is told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        ws_ping_timeout=_PING_SECONDS,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) + _AFTER_SHUTDOWN_SECONDS,
    )
    web = WebServer(config)
    host, port = listener.getsockname()[:2]
    names = ", ".join(app.state.server.pool.names.served)
    at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(console(), f"tilewhisper serves {names} (policy {app.state.server.policy_name}) at {at}")
    web.run(sockets=[listener])
    return 2 if failed.is_set() else 0
