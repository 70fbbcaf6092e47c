"""The server's application: its routes, and how it starts and stops."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from tilewhisper import __version__
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.serving import (
    errors,
    metrics,
    openai_routes,
    page,
    page_routes,
    realtime,
    watching,
    whisper_cpp,
)
from tilewhisper.engine.serving.auth import require_key, require_own_page
from tilewhisper.engine.serving.server import Server
from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.engine.serving.wyoming import serve_wyoming
from tilewhisper.engine.whisper_model import WhisperModel

_log = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
"""How often idle models are looked for."""
_EXPOSED = ("model", "policy", "backends", "emulated", "fallbacks", "rtf")


def create_app(
    settings: ServerSettings,
    on_failure: Callable[[], None] = lambda: None,
    load: Callable[..., WhisperModel] = WhisperModel,
) -> FastAPI:
    """The application that serves `settings`.

    `on_failure` is called where the server cannot do its work, as the default model cannot be loaded, or Wyoming's
    address cannot be used; the reason is logged. `load` makes a model, as WhisperModel does. Raises OptionError.
    """
    server = Server(settings, load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_load_default(server, on_failure)), asyncio.create_task(_unload_idle(server))]
        if settings.wyoming:
            tasks.append(asyncio.create_task(_speak_wyoming(server, settings.wyoming, on_failure)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            server.shutting_down.set()
            server.stop_all()
            server.threads.close()
            server.pool.close()

    # The pages of documentation would load their scripts from elsewhere.
    app = FastAPI(title="tilewhisper", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    errors.install(app)
    for router in (
        openai_routes.router,
        whisper_cpp.router,
        watching.metrics_router,
        page_routes.router,
        realtime.router,
    ):
        app.include_router(router, dependencies=[Depends(require_own_page), Depends(require_key)])
    app.include_router(watching.health_router)
    app.include_router(page.router)
    if settings.cors_origins:
        headers = [f"x-tilewhisper-{name}" for name in _EXPOSED]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=headers,
        )
    app.add_middleware(metrics.CountRequests, metrics=server.metrics)
    return app


async def _load_default(server: Server, on_failure: Callable[[], None]) -> None:
    try:
        async with server.pool.leased(server.pool.names.default):
            pass
    except errors.RequestError:
        on_failure()


async def _speak_wyoming(server: Server, uri: str, on_failure: Callable[[], None]) -> None:
    try:
        await serve_wyoming(server, uri)
    except OptionError as error:
        _log.error("%s", error)
        on_failure()


async def _unload_idle(server: Server) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            server.pool.unload_idle()
