"""The routes by which a server is watched: `/health`, which needs no key, and `/metrics`."""

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tilewhisper import __version__
from tilewhisper.engine.serving import api_description
from tilewhisper.engine.serving.figures import EMULATED
from tilewhisper.engine.serving.model_pool import ModelState
from tilewhisper.engine.serving.server import Server, server_of

health_router, metrics_router = APIRouter(), APIRouter()


@health_router.head("/health", include_in_schema=False)
@health_router.get(
    "/health", response_class=JSONResponse, summary="The server's state", responses=api_description.HEALTH
)
async def health(request: Request) -> Response:
    server = server_of(request)
    body = {
        "status": server.status,
        "version": __version__,
        "policy": server.policy_name,
        "models": [_model(server, name) for name in server.pool.names.served],
        "active": server.admission.active,
        "waiting": server.admission.waiting,
        "live": server.admission.live,
    }
    return JSONResponse(body, 200 if server.status == "ready" else 503)


@metrics_router.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    return Response(generate_latest(server_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model(server: Server, name: str) -> dict[str, Any]:
    state: ModelState = server.pool.state(name)
    model = server.pool.loaded().get(name)
    backends = list(model.backend_labels) if model else []
    emulated = any(EMULATED in label for label in backends)
    return {"name": name, "state": str(state), "backends": backends, "emulated": emulated}
