"""Errors as clients get them: OpenAI's `{"error": {"message", "type", "param", "code"}}`, whatever went wrong.

A message never has a path, a temporary file's name or a traceback: the server's log has the details.
"""

import errno
import logging
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from tilewhisper.engine.errors import USER_ERRORS, ModelClosed, OptionError, PolicyError
from tilewhisper.models.errors import AudioError, LanguageError

_log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""nginx's status of a request whose client has left; it is counted, never sent."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_THE_FILE = "the file"
"""Stands for an upload's name in messages."""


class RequestError(Exception):
    """A request that is refused or that failed."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param` is the form field at fault. Without a `type`, it follows from the status."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.type = type or _type_of(status)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def client_gone() -> RequestError:
    return RequestError(CLIENT_GONE, "the client has closed the connection", code="client_gone")


def shutting_down() -> RequestError:
    return RequestError(
        503, "the server is shutting down; try again later", code="shutting_down", headers={"Retry-After": "10"}
    )


def no_space() -> RequestError:
    return RequestError(
        507, "the server has no room left for temporary files; try again later or with a shorter file", code="disk_full"
    )


def no_space_in(error: BaseException) -> bool:
    """Whether a full disk is the cause of an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
            return True
        cause = cause.__cause__
    return False


def request_error(error: Exception, upload: str) -> RequestError:
    """The answer to an exception of the engine; `upload` is the name under which it read the file."""
    if isinstance(error, RequestError):
        return error
    if no_space_in(error):
        return no_space()
    if isinstance(error, AudioError):
        return RequestError(400, str(error).replace(upload, _THE_FILE), param="file", code="invalid_audio")
    if isinstance(error, LanguageError):
        return RequestError(400, str(error), param="language", code="unsupported_language")
    if isinstance(error, OptionError) and not isinstance(error, PolicyError):
        return RequestError(400, str(error))
    if isinstance(error, ModelClosed):
        return shutting_down()
    if isinstance(error, USER_ERRORS):
        _log.error("a request failed: %s", error)
        return RequestError(
            500,
            f"the model failed ({type(error).__name__}); the server's log has the reason",
            code="model_failed",
        )
    _log.error("a request failed\n%s", "".join(traceback.format_exception(error)))
    return _internal()


def install(app: FastAPI) -> None:
    """Answer every error of the application in OpenAI's shape."""

    async def refused(connection: HTTPConnection, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestError)
        response = error.response()
        if isinstance(connection, WebSocket):
            await connection.send_denial_response(response)
        return response

    async def http(_: HTTPConnection, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = _MESSAGES.get(error.status_code) or HTTPStatus(error.status_code).phrase
        return RequestError(error.status_code, message, headers=error.headers).response()

    async def invalid(_: HTTPConnection, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or None
        return RequestError(422, f"{name or 'the request'}: {first['msg']}", param=name).response()

    async def failed(_: HTTPConnection, error: Exception) -> JSONResponse:
        return _internal().response()  # Starlette raises the error again, so the server's log has it

    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, failed)


_MESSAGES = {
    404: "there is nothing at this address; the API is below /v1, and /openapi.json describes it",
    405: "this address does not take this method; the header Allow lists the methods that it takes",
}


def _internal() -> RequestError:
    return RequestError(500, "the server failed; its log has the reason", code="internal_error")


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
