"""Clients of a server: one that behaves, and the raw bytes for those that do not."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from faults.process import ServerProcess

ROUTE = "/v1/audio/transcriptions"
BOUNDARY = "------faults"
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Answer:
    """A server's answer."""

    status: int
    text: str
    """Of the transcription, or of the error."""
    headers: Mapping[str, str]


def transcribe(server: ServerProcess, file: Path, **fields: str) -> Answer:
    """Send a file as a client that behaves. Raises httpx.TransportError."""
    with file.open("rb") as content:
        answer = httpx.post(
            f"{server.url}{ROUTE}",
            data={"model": "whisper-1", **fields},
            files={"file": (file.name, content)},
            timeout=_TIMEOUT,
        )
    body = answer.json()
    text = body["text"] if answer.is_success else body["error"]["message"]
    return Answer(answer.status_code, text, answer.headers)


def part(name: str, value: bytes, filename: str = "") -> bytes:
    """A part of a multipart body."""
    file = f'; filename="{filename}"' if filename else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"


def form(content: bytes, **fields: str) -> bytes:
    """A whole multipart body."""
    parts = [part(name, value.encode()) for name, value in {"model": "whisper-1", **fields}.items()]
    return b"".join([*parts, part("file", content, "audio.flac"), f"--{BOUNDARY}--\r\n".encode()])


def head(**headers: str) -> bytes:
    """The start of a request for a transcription."""
    given = {"Host": "faults", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"POST {ROUTE} HTTP/1.1\r\n{lines}\r\n".encode()


@contextmanager
def connected(server: ServerProcess) -> Iterator[socket.socket]:
    """A connection of its own."""
    with socket.create_connection((server.host, server.port), timeout=_TIMEOUT) as connection:
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, str]:
    """The status and error message of the answer on a connection. Raises OSError and ValueError."""
    received = b""
    while b"\r\n\r\n" not in received or not received.partition(b"\r\n\r\n")[2].endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            break
        received += piece
    start, _, body = received.partition(b"\r\n\r\n")
    return int(start.split()[1]), json.loads(body)["error"]["message"]


def wait_until_idle(server: ServerProcess, seconds: float = 60.0) -> bool:
    """Wait until no request runs or waits; whether that came in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        body = httpx.get(f"{server.url}/health", timeout=10).json()
        if not body["active"] and not body["waiting"]:
            return True
        time.sleep(0.05)
    return False
