"""Windows of one file or of many, decoded together.

Each job is a course through a file. As many as a batch has places are decoded at once, a window each; one that is done
makes room for the next while the others go on. What comes of a window does not depend on what else is in the batch.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from tilewhisper.engine.decoding.batch import Attempt, Batch, DecodedWindow
from tilewhisper.engine.pipeline.fallback import attempts
from tilewhisper.engine.pipeline.segmenter import Course, Reply, Step, WindowRequest
from tilewhisper.engine.pipeline.session import FileRun
from tilewhisper.engine.report import Seconds, SharedClock, StageName
from tilewhisper.engine.results import Segment

MOST = 32
"""Windows. 60 clips of base took 4-8 % less time than by 16, and no less by 60."""
AHEAD = 4
"""Batches; jobs that are done wait for those before them, and hold their audio meanwhile."""


class Job:
    """A course through a file, the attempt it waits for, and the segments that are to be fetched."""

    def __init__(self, run: FileRun, course: Course, end: int) -> None:
        """`end` is the frame after the course's last."""
        self._run, self._course, self._end = run, course, end
        self._segments: list[Segment] = []
        self._request: WindowRequest | None
        self._attempts: Generator[Attempt, DecodedWindow, Reply] | None
        self._take(next(course))

    @property
    def run(self) -> FileRun:
        return self._run

    @property
    def done(self) -> bool:
        return self._request is None

    @property
    def position(self) -> int:
        """The frame before which all is done."""
        return self._request.seek if self._request else self._end

    def attempt(self) -> Attempt:
        """What is to be decoded next; a window is encoded only now."""
        assert self._request is not None, "the job is done"
        with self._run.clock("total"):
            if self._attempts is None:
                self._attempts = attempts(self._run, self._request)
                self._next = next(self._attempts)
        return self._next

    def send(self, decoded: DecodedWindow, batch_size: int, spent: Mapping[str, Seconds]) -> None:
        """What came of it, among how many, and its part of the time."""
        assert self._attempts is not None, "no attempt was asked for"
        self._run.count(len(decoded.tokens), batch_size, spent)
        with self._run.clock("total"):
            try:
                self._next = self._attempts.send(decoded)
            except StopIteration as over:
                self._take(self._course.send(over.value))

    def fetch(self) -> list[Segment]:
        """The segments that came since last time."""
        segments, self._segments = self._segments, []
        return segments

    def _take(self, step: Step) -> None:
        self._segments.extend(step.segments)
        self._request, self._attempts = step.request, None


class _Place(NamedTuple):
    """In the batch."""

    job: Job
    others: int
    since: Mapping[str, Seconds]
    """A reading of the shared clock."""


def together(jobs: Iterator[Job], size: int, batch: Batch) -> Iterator[Job]:
    """Do the jobs, `size` at a time. In their order, gives the first that is not done whenever windows are, and each
    that is done."""
    begun: deque[Job] = deque()
    places: dict[Attempt, _Place] = {}
    clock = SharedClock()
    while True:
        while begun:
            yield begun[0]
            if not begun[0].done:
                break
            begun.popleft()
        if free := size - len(places):
            new = {job.attempt(): job for job in islice(_waiting(jobs, begun, places.values(), AHEAD * size), free)}
            places |= {attempt: _Place(job, len(places) + len(new), clock.reading()) for attempt, job in new.items()}
            batch.add(list(new))
        if not places:
            if not begun:
                return
            continue  # all that have begun were done at once
        over: list[tuple[Attempt, DecodedWindow]] = []
        while not over:
            prompts = batch.prompt_share
            with clock({StageName.PROMPT: prompts, StageName.DECODE: 1 - prompts}, len(places)):
                over = batch.step()
        for attempt, decoded in over:
            job, most, since = places.pop(attempt)
            job.send(decoded, most, clock.since(since))


def _waiting(jobs: Iterator[Job], begun: deque[Job], places: Iterable[_Place], most: int) -> Iterator[Job]:
    """Those that have begun first, then new ones while no more than `most` have."""
    going = {place.job for place in places}
    yield from [job for job in begun if not job.done and job not in going]
    while len(begun) < most and (job := next(jobs, None)):
        begun.append(job)
        if not job.done:
            yield job


def default_batch_size(window_bytes: int) -> int:
    """From the cores and the memory that is free: how many windows, of which one takes `window_bytes`, go together."""
    cores = os.cpu_count() or 1
    return max(1, min(MOST, 16 * cores, _free_memory() // 4 // window_bytes))


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 4 << 30
