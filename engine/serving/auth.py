"""Who may ask: API keys, compared in constant time, and the pages that a browser shows."""

import hmac
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.serving.errors import RequestError

_SUBPROTOCOL_KEY = "openai-insecure-api-key."
"""OpenAI's prefix of a key among the subprotocols of a WebSocket: browsers cannot set its headers."""


async def require_key(connection: HTTPConnection) -> None:
    """Let a request or WebSocket pass that has one of the server's keys. Raises RequestError."""
    keys: tuple[str, ...] = connection.app.state.server.settings.api_keys
    if not keys:
        return
    given = _given(connection)
    if given is None:
        raise _refused("an API key is needed: send the header Authorization: Bearer KEY", "missing_api_key")
    # Bytes, as compare_digest refuses text that is not ASCII; all keys, so that the time does not tell which was near.
    if not sum(hmac.compare_digest(key.encode(), given) for key in keys):
        raise _refused("the API key is wrong", "invalid_api_key")


async def require_own_page(connection: HTTPConnection) -> None:
    """Let a browser's request or WebSocket pass only from the server's own page, or from an origin that is allowed.

    Without keys, any website could have the visitor's server work for it. Its address must be a number or localhost: a
    website may point its own name at it. Other clients send no origin. Raises RequestError.
    """
    settings = connection.app.state.server.settings
    origin = connection.headers.get("origin")
    if settings.api_keys or origin is None or origin in settings.cors_origins:
        return
    page = urlsplit(origin)
    if page.netloc != connection.headers.get("host") or not _is_safe(page.hostname or ""):
        raise RequestError(
            403,
            "pages of this origin may not use a server without keys; start it with --api_key_file, or with "
            "--cors_origin and the page's origin",
            code="origin_refused",
        )


def read_keys(path: str) -> tuple[str, ...]:
    """The keys of a file, one a line; empty lines and lines that start with # are left out. Raises OptionError."""
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except OSError as error:
        raise OptionError(f"--api_key_file {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise OptionError(f"--api_key_file {path}: is not text in UTF-8; write one key a line") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise OptionError(f"--api_key_file {path}: has no key; write one key a line")
    if any(len(key.split()) > 1 for key in keys):
        raise OptionError(f"--api_key_file {path}: a key must not have spaces in it; write one key a line")
    return keys


def _is_safe(host: str) -> bool:
    """Whether a host is an address or localhost, and no name that somebody else may have chosen."""
    try:
        return host == "localhost" or bool(ip_address(host))
    except ValueError:
        return False


def _given(connection: HTTPConnection) -> bytes | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip().encode("latin-1")
    if connection.scope["type"] == "websocket":
        for protocol in connection.scope.get("subprotocols", ()):
            if protocol.startswith(_SUBPROTOCOL_KEY):
                return str(protocol).removeprefix(_SUBPROTOCOL_KEY).encode()
    return None


def _refused(message: str, code: str) -> RequestError:
    return RequestError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})
