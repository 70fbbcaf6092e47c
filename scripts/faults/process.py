"""The server under test: a process of its own, with a temporary folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 300.0
STOP_SECONDS = 90.0


class UnexpectedError(Exception):
    """A server that does not behave as it should."""


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    process: "subprocess.Popen[str]"
    host: str
    port: int
    temporary: Path
    """Its TMPDIR."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def health(self) -> str:
        """Its status. Raises UnexpectedError where it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10) as answer:
                return str(json.load(answer)["status"])
        except urllib.error.HTTPError as error:
            return str(json.load(error)["status"])
        except OSError as error:
            raise UnexpectedError(f"the server does not answer: {error}") from error

    def left_files(self) -> list[str]:
        """Files in its temporary folder, and files of it that are open without a name."""
        named = [str(path) for path in self.temporary.rglob("*")]
        opened = [str(link.readlink()) for link in self._open_files()]
        return named + [file for file in opened if file.startswith(f"{self.temporary}/")]

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status. Raises UnexpectedError."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise UnexpectedError(f"the server still runs {STOP_SECONDS:g} s after SIGTERM") from error

    def _open_files(self) -> Iterator[Path]:
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            if link.is_symlink():
                yield link


@contextmanager
def server(temporary: Path, flags: Sequence[str]) -> Iterator[ServerProcess]:
    """A server with these flags that is ready. Raises UnexpectedError."""
    program = [str(Path(sys.executable).with_name("tilewhisper")), "serve", "--port", "0", *flags]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().rpartition("http://")[2].strip()
        if not address:
            raise UnexpectedError(f"the server ended with status {process.wait()} before it listened")
        host, _, port = address.rpartition(":")
        running = ServerProcess(process, host, int(port), temporary)
        deadline = time.monotonic() + START_SECONDS
        while running.health() != "ready":
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnexpectedError("the server does not become ready")
            time.sleep(0.1)
        yield running
    finally:
        process.kill()
        process.communicate()
