"""Uploads: a multipart form, its file streamed to disk within the server's limit.

The temporary file has no name where the system allows it (Linux), so that nothing is left even of a killed server.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from tilewhisper.engine.serving.errors import RequestError, client_gone, no_space, no_space_in
from tilewhisper.engine.serving.settings import ServerSettings

MAX_FIELDS = 64
MAX_FIELD_BYTES = 1 << 20
"""Of all fields together, names included; the file is not counted."""
_WRITE_BYTES = 1 << 20
_OPEN_FILES = Path("/proc/self/fd")
"""Linux: the process's open files, by which a file without a name can be opened again."""


@dataclass(frozen=True)
class Upload:
    """A received file."""

    path: Path
    """Where this process can open it."""
    bytes: int


@dataclass(frozen=True)
class Form:
    """A received form."""

    file: Upload
    fields: list[tuple[str, str]]
    """(name, value) in the order of the form, the file left out."""


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[Form]:
    """Receive a multipart form whose `file` is within the server's limit; the file vanishes with the context.

    Raises RequestError.
    """
    settings: ServerSettings = request.app.state.server.settings
    boundary = _boundary(request)
    _check_stated_length(request, settings.max_upload_bytes)
    with _temporary_file() as file:
        parts = _Parts(settings.max_upload_bytes)
        await _receive(request, boundary, parts, file, settings)
        if parts.file_bytes is None:
            raise RequestError(400, "the form has no file: send the audio as the part named file", param="file")
        if not parts.file_bytes:
            raise RequestError(400, "the file is empty (0 bytes)", param="file", code="invalid_audio")
        yield Form(Upload(_path_of(file), parts.file_bytes), parts.fields)


def too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        f"the file is larger than {limit / 2**20:g} MB, the limit of this server; compress it (opus or mp3) or cut it",
        param="file",
        code="file_too_large",
    )


async def _receive(
    request: Request, boundary: bytes, parts: "_Parts", file: IO[bytes], settings: ServerSettings
) -> None:
    body = aiter(request.stream())
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async with asyncio.timeout(settings.upload_seconds):
            while piece := await _next_piece(body, settings.upload_idle_seconds):
                parser.write(piece)
                if len(parts.unwritten) >= _WRITE_BYTES:
                    await run_in_threadpool(_write, file, parts.take())
            await run_in_threadpool(_write, file, parts.take())
    except FormParserError as error:
        raise RequestError(400, f"the multipart body is malformed: {error}", code="malformed_multipart") from error
    except TimeoutError as error:
        raise RequestError(
            408, "the upload took too long; send it faster or compress it", headers={"Connection": "close"}
        ) from error
    except ClientDisconnect as error:
        raise client_gone() from error
    if not parts.complete:
        raise RequestError(
            400, "the multipart body ends before its closing boundary: the upload was cut off", code="truncated_upload"
        )


async def _next_piece(body: AsyncIterator[bytes], seconds: float) -> bytes:
    """The next bytes of the body, empty at its end. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        return await anext(body, b"")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        got = f"got {kind.decode('latin-1')[:80]}" if kind else "the request has no Content-Type"
        raise RequestError(415, f"the body must be multipart/form-data; {got}", code="unsupported_content_type")
    if not (boundary := options.get(b"boundary")):
        raise RequestError(400, "the Content-Type has no boundary", code="malformed_multipart")
    return boundary


def _check_stated_length(request: Request, limit: int) -> None:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit + 2 * MAX_FIELD_BYTES:  # the fields, and the headers of the parts
        raise too_large(limit)


def _temporary_file() -> Any:
    make = tempfile.TemporaryFile if _OPEN_FILES.is_dir() else tempfile.NamedTemporaryFile
    try:
        return make(prefix="tilewhisper-", buffering=0)
    except OSError as error:
        raise no_space() from error


def _path_of(file: IO[bytes]) -> Path:
    return Path(file.name) if isinstance(file.name, str) else _OPEN_FILES / str(file.fileno())


def _write(file: IO[bytes], data: bytearray) -> None:
    """Raises RequestError where the disk is full."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if no_space_in(error):
            raise no_space() from error
        raise


class _Parts:
    """The parts of a form as the parser reports them: fields whole, the file's bytes for the caller to write."""

    def __init__(self, max_file_bytes: int) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_bytes: int | None = None
        """None until there is a file."""
        self.unwritten = bytearray()
        self.complete = False
        self._max_file_bytes = max_file_bytes
        self._field_bytes = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition: dict[bytes, bytes] = {}
        self._value = bytearray()
        self._is_file = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def take(self) -> bytearray:
        """The file's bytes since the last call."""
        taken, self.unwritten = self.unwritten, bytearray()
        return taken

    def _begin(self) -> None:
        self._disposition = {}
        self._value.clear()

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(bytes(self._header_value))
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        if not self._disposition.get(b"name"):
            raise RequestError(400, "a part of the form has no name", code="malformed_multipart")
        self._is_file = b"filename" in self._disposition
        if not self._is_file:
            self._count(len(self._disposition[b"name"]))
            if len(self.fields) >= MAX_FIELDS:
                raise RequestError(400, f"the form has more than {MAX_FIELDS} fields", code="malformed_multipart")
            return
        if (name := self._name) != "file":
            raise RequestError(400, f"{name[:80]!r} must be a plain field, not a file", param=name[:80])
        if self.file_bytes is not None:
            raise RequestError(400, "the form has more than one file; send one a request", param="file")
        self.file_bytes = 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._count(end - start)
            self._value += data[start:end]
            return
        assert self.file_bytes is not None
        self.file_bytes += end - start
        if self.file_bytes > self._max_file_bytes:
            raise too_large(self._max_file_bytes)
        self.unwritten += data[start:end]

    def _end(self) -> None:
        if not self._is_file:
            self.fields.append((self._name, _text(self._value, self._name)))

    def _finish(self) -> None:
        self.complete = True

    def _count(self, count: int) -> None:
        self._field_bytes += count
        if self._field_bytes > MAX_FIELD_BYTES:
            raise RequestError(413, f"the fields of the form are larger than {MAX_FIELD_BYTES >> 20} MB together")

    @property
    def _name(self) -> str:
        return _text(self._disposition[b"name"], "a field's name")


def _text(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(400, f"{what[:80]} is not text in UTF-8", code="malformed_multipart") from error
