"""Admission: how many requests are transcribed at the same time, how many wait, and when one is refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tilewhisper.engine.serving.errors import RequestError, shutting_down
from tilewhisper.engine.serving.settings import ServerSettings

_NEWEST_SHARE = 0.2
"""Of the newest request in the running mean of their seconds."""


class Admission:
    """A bounded queue: requests take the places in the order in which they are ready. For the event loop's thread."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.max_running)
        self._inside = 0
        self._live = 0
        self._mean_seconds = 0.0
        self.active = 0
        """Requests that have a place."""
        self.closed = False
        """Whether everything new is refused, because the server shuts down."""

    @property
    def waiting(self) -> int:
        """Requests that upload or wait for a place."""
        return self._inside - self.active

    @property
    def live(self) -> int:
        """Live sessions."""
        return self._live

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the queue, before the body is read. Raises RequestError where it is full."""
        self._refuse_if_closed()
        settings = self._settings
        if self._inside >= settings.max_running + settings.max_waiting:
            raise RequestError(
                429,
                f"the server is busy: {self.active} requests run and {self.waiting} wait; try again later",
                code="queue_full",
                headers={"Retry-After": str(self._retry_after())},
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and have it while the context lasts."""
        async with self._places:
            self.active += 1
            began = time.monotonic()
            try:
                yield
            finally:
                self.active -= 1
                self._mean_seconds += _NEWEST_SHARE * (time.monotonic() - began - self._mean_seconds)

    @contextmanager
    def live_place(self) -> Iterator[None]:
        """Have the place of a live session while the context lasts. Raises RequestError where none is free."""
        self._refuse_if_closed()
        if self._live >= self._settings.max_live:
            raise RequestError(
                429, f"the server is busy: {self._live} live sessions run; try again later", code="live_sessions_full"
            )
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise shutting_down()

    def _retry_after(self) -> int:
        """Seconds until a place in the queue is likely to be free."""
        return max(1, round(self._mean_seconds * (self.waiting + 1) / self._settings.max_running))
