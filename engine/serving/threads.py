"""The threads of a server: a few that read audio, and one for each running request that waits for its text."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

READERS = 4
"""Each thread that computes a log-mel spectrogram has an OpenMP pool of its own."""
LARGE_READERS = 2
"""At most as many read large files at the same time, so that a small one never waits for hours of audio."""
LARGE_BYTES = 4 << 20


class Threads:
    """The thread pools, and who may read."""

    def __init__(self, max_running: int) -> None:
        self.reading = ThreadPoolExecutor(READERS, "tilewhisper-reader")
        self.decoding = ThreadPoolExecutor(max_running, "tilewhisper-waiter")
        self._readers = asyncio.Semaphore(READERS)
        self._large = asyncio.Semaphore(LARGE_READERS)

    @asynccontextmanager
    async def lane(self, file_bytes: int) -> AsyncIterator[None]:
        """Wait until a thread may read a file of this size."""
        async with AsyncExitStack() as stack:
            if file_bytes >= LARGE_BYTES:
                await stack.enter_async_context(self._large)
            await stack.enter_async_context(self._readers)
            yield

    def close(self) -> None:
        """End the threads, once each is done."""
        self.reading.shutdown(cancel_futures=True)
        self.decoding.shutdown(cancel_futures=True)
