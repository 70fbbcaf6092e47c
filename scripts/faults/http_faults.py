"""Faults of clients and of the machine, each against a running server; what it answers is returned as a sentence."""

import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.clients import connected, form, head, part, read_answer, transcribe, wait_until_idle
from faults.process import ServerProcess, UnexpectedError

GIGABYTE = 1 << 30
_PIECE = bytes(1 << 20)
_SLOW_CLIENTS = 20
_SMALL_DISK = 64 << 10


def killed_client(server: ServerProcess, speech: Path) -> str:
    """A client that leaves while its file is transcribed, and one while its text streams."""
    body = form(speech.read_bytes(), stream="true")
    for wait_for_text in (False, True):
        with connected(server) as connection:
            connection.sendall(head(Content_Length=str(len(body))) + body)
            if wait_for_text:
                connection.recv(100)
            else:
                time.sleep(0.2)
            # A killed process: the connection is reset, not closed.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if not wait_until_idle(server):
        raise UnexpectedError("the requests of clients that left still run")
    return "its place is free"


def truncated_upload(server: ServerProcess, speech: Path) -> str:
    """A body that ends within the file, and a client that leaves within it."""
    body = form(speech.read_bytes())[:-1000]
    with connected(server) as connection:
        connection.sendall(head(Content_Length=str(len(body))) + body)
        status, message = read_answer(connection)
    _expect(status, 400, message)
    with connected(server) as connection:
        connection.sendall(head(Content_Length=str(len(body) + 1000)) + body)
    if not wait_until_idle(server):
        raise UnexpectedError("the request of a client that left during its upload still runs")
    return f"{status}: {message}"


def huge_upload(server: ServerProcess, speech: Path) -> str:
    """1 GB against the limit of 25 MB, with its length stated, and in chunks without one."""
    with connected(server) as connection:
        connection.sendall(head(Content_Length=str(GIGABYTE)))
        status, message = read_answer(connection)
    _expect(status, 413, message)
    sent = 0
    with connected(server) as connection:
        connection.sendall(head(Transfer_Encoding="chunked"))
        begin = part("file", b"", "audio.flac")[:-2]
        connection.sendall(f"{len(begin):x}\r\n".encode() + begin + b"\r\n")
        connection.settimeout(0.0)
        while sent < GIGABYTE and not _has_answer(connection):
            connection.settimeout(60)
            connection.sendall(f"{len(_PIECE):x}\r\n".encode() + _PIECE + b"\r\n")
            sent += len(_PIECE)
            connection.settimeout(0.0)
        connection.settimeout(60)
        status, message = read_answer(connection)
    _expect(status, 413, message)
    return f"{status} before the body, and after {sent >> 20} MB without a length: {message}"


def slow_clients(server: ServerProcess, speech: Path) -> str:
    """Clients that stop in the middle of their uploads, while another one is served."""
    body = form(speech.read_bytes())
    connections = [socket.create_connection((server.host, server.port), timeout=120) for _ in range(_SLOW_CLIENTS)]
    try:
        for connection in connections:
            connection.sendall(head(Content_Length=str(len(body))) + body[:5000])
        answer = transcribe(server, speech)
        _expect(answer.status, 200, answer.text)
        answers = [read_answer(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    for status, message in answers:
        _expect(status, 408, message)
    return f"another client was served meanwhile; each of {_SLOW_CLIENTS} got {answers[0][0]}: {answers[0][1]}"


def full_disk(server: ServerProcess, speech: Path) -> str:
    """A temporary folder without space for the upload."""
    with _little_space(server) as how:
        answer = transcribe(server, speech)
    _expect(answer.status, 507, answer.text)
    return f"({how}) {answer.status}: {answer.text}"


FAULTS: Mapping[str, Callable[[ServerProcess, Path], str]] = {
    "killed client": killed_client,
    "truncated upload": truncated_upload,
    "1 GB upload": huge_upload,
    "slow clients": slow_clients,
    "full temporary disk": full_disk,
}


@contextmanager
def _little_space(server: ServerProcess) -> Iterator[str]:
    """Leave the server little space: a small file system over its temporary folder, or a limit of its files' sizes."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK}", "tmpfs", str(server.temporary)]
    mounted = False
    with suppress(OSError):
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    if mounted:
        try:
            yield f"tmpfs of {_SMALL_DISK >> 10} KB"
        finally:
            subprocess.run(["umount", str(server.temporary)], check=True)
        return
    pid, kind = server.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind, (_SMALL_DISK, resource.prlimit(pid, kind)[1]))
    try:
        yield f"RLIMIT_FSIZE of {_SMALL_DISK >> 10} KB, as no tmpfs can be mounted"
    finally:
        resource.prlimit(pid, kind, before)


def _has_answer(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def _expect(status: int, expected: int, message: str) -> None:
    if status != expected:
        raise UnexpectedError(f"the answer is {status} ({message}), not {expected}")
