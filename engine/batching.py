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
from tilewhisper.engine.fallback import came_out_badly, is_silence, may_be_silence, needs_fallback
from tilewhisper.engine.file_run import FileRun
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import shared
from tilewhisper.engine.results import Segment

if TYPE_CHECKING:
    from tilewhisper.engine.model import WhisperModel

MOST = 32
"""Windows: as many rows as a layer of the decoder takes in one native call. 60 clips of base took 4-8 % less time than
by 16, and no less by 60."""
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
    return max(1, min(MOST, 16 * cores, _free_memory() // 4 // window_bytes))


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 4 << 30


def _answer(
    asked: Sequence[tuple[FileRun, WindowRequest]], model: "WhisperModel", options: TranscriptionOptions
) -> list[Reply]:
    """Encode the windows one by one and decode them together."""
    batch = _Batch(asked, model, options)
    batch.decode_all()
    batch.doubt_what_silence_says()
    return batch.replies()


class _Batch:
    """Windows that are decoded together, and what was found in each."""

    def __init__(
        self, asked: Sequence[tuple[FileRun, WindowRequest]], model: "WhisperModel", options: TranscriptionOptions
    ) -> None:
        self._asked, self._model, self._options = asked, model, options
        self._windows = [run.encode(request) for run, request in asked]
        self._languages = [run.language_of(window) for (run, _), window in zip(asked, self._windows, strict=True)]
        prompt, timestamps = model.checkpoint.tokenizer.prompt, not options.without_timestamps
        self._plain = [prompt(language, options.task, timestamps) for language in self._languages]
        self._prompts = [request.prompt.around(plain) for (_, request), plain in zip(asked, self._plain, strict=True)]
        self._found: dict[int, DecodedWindow] = {}

    def decode_all(self) -> None:
        """One that was encoded with a cheap silence and comes out badly at the first temperature is encoded in full,
        and tried at all."""
        every, options, found = range(len(self._asked)), self._options, self._found
        first, later = options.temperatures[:1], options.temperatures[1:]
        found.update(self._decode(every, first, self._prompts))
        cheap = [i for i in every if self._windows[i].encoded.cheap]
        unsure = [i for i in every if i not in cheap and needs_fallback(found[i], options)]
        again = [i for i in cheap if came_out_badly(found[i], options)]
        for i in again:
            run, request = self._asked[i]
            self._windows[i] = run.encode_again(request)
        found.update(self._decode(again, options.temperatures, self._prompts))
        if later:
            found.update(self._decode(unsure, later, self._prompts))

    def doubt_what_silence_says(self) -> None:
        """Text before a window makes the model sure of what it goes on with, in silence too: 40 s of zeros after speech
        gave "Thank you for watching." at a log-probability of -0.71, and -3.23 without the text. So where no-speech is
        likely, the window must be sure of its text by itself."""
        doubtful = [
            i
            for i, decoded in self._found.items()
            if self._prompts[i] != self._plain[i] and may_be_silence(decoded, self._options)
        ]
        alone = self._decode(doubtful, self._options.temperatures[:1], self._plain)
        self._found |= {i: decoded for i, decoded in alone.items() if is_silence(decoded, self._options)}

    def replies(self) -> list[Reply]:
        return [
            Reply(self._found[i], language, partial(run.align, self._windows[i], language))
            for i, ((run, _), language) in enumerate(zip(self._asked, self._languages, strict=True))
        ]

    def _decode(
        self, numbers: Sequence[int], temperatures: Sequence[float], prompts: Sequence[Sequence[int]]
    ) -> dict[int, DecodedWindow]:
        if not numbers:
            return {}
        runs = [self._asked[i][0] for i in numbers]
        with shared([run.clock for run in runs], "decode"):
            heard, before = [self._windows[i].heard for i in numbers], [prompts[i] for i in numbers]
            found = self._model.decode(heard, self._options, before, temperatures)
        for run, decoded in zip(runs, found, strict=True):
            run.count(len(decoded.tokens), len(numbers))
        return dict(zip(numbers, found, strict=True))
