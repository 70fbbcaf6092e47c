"""The server's application: its routes, its models, and how it starts and stops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tilewhisper.engine.serving.model_pool import ModelPool
from tilewhisper.engine.serving.settings import ServerSettings


class Server:
    """What the routes of one application share; they find it as `request.app.state.server`."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.pool = ModelPool(settings)


def create_app(settings: ServerSettings) -> FastAPI:
    """The application that serves `settings`."""
    server = Server(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.pool.close()

    app = FastAPI(title="tilewhisper", lifespan=lifespan)
    app.state.server = server
    return app
