"""Clients of a server: each sends one request after the other, until all requests are answered."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from server_load.servers import RunningServer

ROUTE = "/v1/audio/transcriptions"
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Answer:
    """One request's answer."""

    file: Path
    seconds: float
    """From sending the request to the last byte of the answer."""
    text: str | None
    """None where the request failed."""
    error: str | None = None
    resident_bytes: int = 0
    """The server's memory when the answer had come."""
    arrived: float = 0.0
    """On the clock of `time.perf_counter`."""


@dataclass(frozen=True)
class Load:
    """The answers of a number of clients, in the order of their arrival."""

    answers: Sequence[Answer]
    seconds: float
    """From the first request to the last answer."""

    @property
    def requests_per_second(self) -> float:
        return len(self.answers) / self.seconds

    def latency(self, percent: int) -> float:
        """The seconds within which so many of the requests were answered."""
        if len(self.answers) == 1:
            return self.answers[0].seconds
        return statistics.quantiles([answer.seconds for answer in self.answers], n=100, method="inclusive")[percent - 1]


def send(server: RunningServer, files: Sequence[Path], clients: int, model: str, language: str) -> Load:
    """Send each file once, as many at a time as there are clients."""
    return asyncio.run(_send(server, files, clients, model, language))


def send_beside(
    server: RunningServer, files: Sequence[Path], clients: int, beside: Path, model: str, language: str
) -> tuple[Load, Answer]:
    """Send `beside`, and once it is being transcribed the files; the answers of both."""

    async def both() -> tuple[Load, Answer]:
        async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_SECONDS) as client:
            long = asyncio.create_task(_request(client, server, beside, model, language))
            await asyncio.sleep(1.0)
            load = await _send(server, files, clients, model, language)
            return load, await long

    return asyncio.run(both())


async def _send(server: RunningServer, files: Sequence[Path], clients: int, model: str, language: str) -> Load:
    left = iter(files)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_SECONDS, limits=limits) as client:
        started = time.perf_counter()
        turns = [_work(client, server, left, model, language) for _ in range(clients)]
        answers = [answer for answers in await asyncio.gather(*turns) for answer in answers]
        return Load(sorted(answers, key=lambda answer: answer.arrived), time.perf_counter() - started)


async def _work(
    client: httpx.AsyncClient, server: RunningServer, left: Iterator[Path], model: str, language: str
) -> list[Answer]:
    return [await _request(client, server, file, model, language) for file in left]


async def _request(client: httpx.AsyncClient, server: RunningServer, file: Path, model: str, language: str) -> Answer:
    started = time.perf_counter()
    try:
        answer = await client.post(
            ROUTE, files={"file": (file.name, file.read_bytes())}, data={"model": model, "language": language}
        )
        answer.raise_for_status()
        text, error = answer.json()["text"], None
    except (httpx.HTTPError, ValueError, KeyError) as problem:
        text, error = None, f"{type(problem).__name__}: {problem}"
    arrived = time.perf_counter()
    return Answer(file, arrived - started, text, error, server.resident_bytes(), arrived)
