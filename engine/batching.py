"""Windows of one file or of many, decoded together.

Each job is a course through a file. As many as a batch has places go on at once, a window each; one that is done makes
room for the next. What comes of a window does not depend on what else is in its batch.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tilewhisper.engine.course import Course, Reply, Step, WindowRequest
from tilewhisper.engine.decoding import DecodedWindow
from tilewhisper.engine.fallback import came_out_badly, needs_fallback
from tilewhisper.engine.file_run import FileRun
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import shared
from tilewhisper.engine.results import Segment

if TYPE_CHECKING:
    from tilewhisper.engine.model import WhisperModel

MOST = 16
"""Windows; beyond that a step's products have rows enough, and only memory grows."""
AHEAD = 4
"""Batches; jobs that are done wait for those before them, and hold their audio meanwhile."""


class Job:
    """A course through a file, the window it waits for, and the segments that are to be fetched."""

    def __init__(self, run: FileRun, course: Course, end: int) -> None:
        """`end` is the frame after the course's last."""
        self.run = run
        self._course, self._end = course, end
        self._segments: list[Segment] = []
        self._take(next(course))

    @property
    def done(self) -> bool:
        return self.request is None

    @property
    def position(self) -> int:
        """The frame before which all is done."""
        return self.request.seek if self.request else self._end

    def send(self, reply: Reply) -> None:
        self._take(self._course.send(reply))

    def fetch(self) -> list[Segment]:
        """The segments that came since last time."""
        segments, self._segments = self._segments, []
        return segments

    def _take(self, step: Step) -> None:
        self._segments.extend(step.segments)
        self.request: WindowRequest | None = step.request


def together(jobs: Iterator[Job], size: int, model: "WhisperModel", options: TranscriptionOptions) -> Iterator[Job]:
    """Do the jobs, `size` at a time. In their order, gives the first that is not done after each batch of windows, and
    each that is done."""
    begun: deque[Job] = deque()
    while True:
        going = [job for job in begun if not job.done]
        while len(going) < size and len(begun) < AHEAD * size and (job := next(jobs, None)):
            begun.append(job)
            going += [] if job.done else [job]
        while begun:
            yield begun[0]
            if not begun[0].done:
                break
            begun.popleft()
        if not going:
            return
        with shared([job.run.clock for job in going], "total"):
            asked = [(job.run, job.request) for job in going if job.request]
            for job, reply in zip(going, _answer(asked, model, options), strict=True):
                job.send(reply)


def default_batch_size(window_bytes: int) -> int:
    """From the cores and the memory that is free: how many windows, of which one takes `window_bytes`, go together."""
    cores = os.cpu_count() or 1
    return max(1, min(MOST, 4 * cores, _free_memory() // 4 // window_bytes))


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 4 << 30


def _answer(
    asked: Sequence[tuple[FileRun, WindowRequest]], model: "WhisperModel", options: TranscriptionOptions
) -> list[Reply]:
    """Encode the windows one by one and decode them together. One that was encoded with a cheap silence and comes out
    badly at the first temperature is encoded in full, and tried at all."""
    windows = [run.encode(request) for run, request in asked]
    languages = [run.language_of(window) for (run, _), window in zip(asked, windows, strict=True)]
    task, timestamps = options.task, not options.without_timestamps
    prompts = [
        request.prompt.around(model.checkpoint.tokenizer.prompt(language, task, timestamps))
        for (_, request), language in zip(asked, languages, strict=True)
    ]
    found: dict[int, DecodedWindow] = {}

    def decode(numbers: Sequence[int], temperatures: Sequence[float]) -> None:
        if not numbers:
            return
        with shared([asked[i][0].clock for i in numbers], "decode"):
            heard, before = [windows[i].heard for i in numbers], [prompts[i] for i in numbers]
            found.update(zip(numbers, model.decode(heard, options, before, temperatures), strict=True))
        for i in numbers:
            asked[i][0].count(len(found[i].tokens), len(numbers))

    first, later = options.temperatures[:1], options.temperatures[1:]
    decode(range(len(asked)), first)
    cheap = [i for i, window in enumerate(windows) if window.encoded.cheap]
    unsure = [i for i in range(len(asked)) if i not in cheap and needs_fallback(found[i], options)]
    again = [i for i in cheap if came_out_badly(found[i], options)]
    for i in again:
        run, request = asked[i]
        windows[i] = run.encode_again(request)
    decode(again, options.temperatures)
    if later:
        decode(unsure, later)
    return [
        Reply(found[i], languages[i], partial(run.align, windows[i], languages[i])) for i, (run, _) in enumerate(asked)
    ]
