"""The latest audio of a stream: a buffer that is addressed by the stream's samples, and forgets the old ones."""

from collections import deque

import numpy as np

from tilewhisper.models.audio.recording import Samples, join


class LatestAudio:
    """Samples first..end-1 of a stream."""

    def __init__(self, first: int = 0) -> None:
        self.first = self.end = first
        self._blocks: deque[Samples] = deque()

    def append(self, samples: Samples) -> None:
        if len(samples):
            self._blocks.append(samples)
            self.end += len(samples)

    def read(self, first: int, last: int) -> Samples:
        """Samples first..last-1, which must not be forgotten."""
        if not self.first <= first <= last <= self.end:
            raise IndexError(f"samples {first} to {last} are not among {self.first} to {self.end}")
        joined = join((np.zeros(0, np.float32), *self._blocks))
        return joined[first - self.first : last - self.first]

    def forget_before(self, position: int) -> None:
        """Forget whole blocks before `position`."""
        while self._blocks and self.first + len(self._blocks[0]) <= position:
            self.first += len(self._blocks.popleft())
