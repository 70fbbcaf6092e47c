"""The servers under load: processes on free ports of the loopback address, and their resident memory."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 120.0
HERE = Path(__file__).parent


class ServerError(Exception):
    """A server that did not start, or has ended."""


@dataclass(frozen=True)
class RunningServer:
    """A server that answers requests in the shape of OpenAI's API."""

    name: str
    url: str
    process: int

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def ours(model: str, policy: str, threads: int, beam_size: int) -> list[str]:
    """The command of our server, but for its port."""
    program = str(Path(sys.executable).with_name("tilewhisper"))
    flags = ["--model", model, "--policy", policy, "--threads", str(threads), "--beam_size", str(beam_size)]
    return [program, "serve", *flags, "--port"]


def faster_whisper(weights: Path | str, threads: int, beam_size: int) -> list[str]:
    """The command of the peer's server, but for its port."""
    return [sys.executable, str(HERE / "faster_whisper_server.py"), str(weights), str(threads), str(beam_size)]


@contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[RunningServer]:
    """Start a server, wait until it answers `/health`, and end it. Raises ServerError."""
    port = _free_port()
    process = subprocess.Popen([*command, str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(name, url, process)
        yield RunningServer(name, url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(name: str, url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"{name} ended with status {process.returncode} before it answered")
        try:
            answer = httpx.get(f"{url}/health", timeout=5)
            if answer.status_code == httpx.codes.OK and answer.json().get("status") == "ready":
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ServerError(f"{name} was not ready after {START_SECONDS:g} s")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
