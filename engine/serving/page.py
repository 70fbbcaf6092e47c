"""The web page: its files, and the JSON routes that only it needs, below `/page/`.

`router` needs no API key: it has the files, so that a browser can show the page that asks for the key. `api` is for the
model and its runs.
"""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

_FOLDER = Path(str(resources.files(__package__))) / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}

HEADERS = {
    # blob: is the file that the user chose, played from the browser's own memory.
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # asked for again each time, so that page and server are of one version
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> FileResponse:
    """The page."""
    return _answer(_FILES["index.html"])


@router.get("/page/files/{name}")
def file(name: str) -> FileResponse:
    """A module, a style sheet or the icon of the page."""
    if name not in _FILES:
        raise HTTPException(404)
    return _answer(_FILES[name])


def _answer(path: Path) -> FileResponse:
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=HEADERS)
