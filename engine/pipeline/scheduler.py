"""The scheduler: one loop that owns the model and decodes the windows of all jobs together.

Jobs arrive at any time from any thread, each with its own options; they share decode steps and finish in any order.
Jobs that wait for a place in the batch take turns, so that a long file does not delay short ones.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from tilewhisper.engine.decoding.batch import Attempt, Batch
from tilewhisper.engine.errors import EngineError, ForkError, ModelClosed
from tilewhisper.engine.pipeline import fork
from tilewhisper.engine.pipeline.job import Job
from tilewhisper.engine.pipeline.loop import Loop
from tilewhisper.engine.report import Seconds, SharedClock, StageName

MAX_BATCH = 32
"""Windows. 60 clips of base took 4-8 % less time than by 16, and no less by 60."""
MAX_FINISHED = 4
"""In batches: finished jobs that may wait, with their audio, for the jobs before them in order."""

T = TypeVar("T")


class _Place(NamedTuple):
    """A job in the batch."""

    job: Job
    windows: int
    """In the batch when the job joined, itself included."""
    since: Mapping[str, Seconds]
    """The shared clock's reading then."""


class Scheduler(Loop):
    """Runs jobs and other calls on one model. All public methods may be called from any thread."""

    def __init__(self, batch: Batch, max_batch: int = MAX_BATCH, *, on_device: bool = False) -> None:
        """`on_device`: the model uses a device, which a forked process cannot."""
        super().__init__()
        self._batch, self._max_batch, self._on_device = batch, max_batch, on_device
        self._calls: deque[Callable[[], None]] = deque()
        self._jobs: dict[Job, None] = {}  # all that are not done, in the order they came
        self._waiting: deque[Job] = deque()
        self._places: dict[Attempt, _Place] = {}
        self._clock = SharedClock()
        fork.register(self)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ModelClosed."""
        with self._lock:
            self.check_open()
            if not job.done:
                self._jobs[job] = None
                self._waiting.append(job)
                self._notify()

    def cancel(self, job: Job) -> None:
        """End a job; its place in the batch is free before the next decode step."""
        with self._lock:
            job.cancel()
            if not self._stepping:
                self._drop_cancelled()
            self._notify()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function that uses the model between two decode steps, and return its result or raise its exception.

        Raises ModelClosed.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            self.check_open()
            self._calls.append(run)
            self._notify()
        try:
            self.run_until(future.done)
        except BaseException:
            with self._lock, suppress(ValueError):
                self._calls.remove(run)
            raise
        return future.result()

    def close(self) -> None:
        """End all jobs with ModelClosed once the step under way is over; everything else is refused from now on."""
        with self._lock:
            self._end_jobs(ModelClosed)
            self._refuse(ModelClosed)
            self._clear()
        self._join()

    def after_fork_in_child(self) -> None:
        """Start anew: the threads that wait for the jobs are not in this process."""
        self._after_fork(ForkError.of_device if self._on_device else None)
        self._calls.clear()
        self._end_jobs(ForkError.of_transcription)
        self._clear()

    def _end_jobs(self, error: Callable[[], EngineError]) -> None:
        for job in [*self._jobs]:
            job.fail(error())

    def _clear(self) -> None:
        self._jobs.clear()
        self._waiting.clear()
        self._places.clear()
        self._batch.clear()

    def _has_work(self) -> bool:
        return bool(self._calls or self._jobs)

    def _step(self) -> None:
        try:
            self._run_calls_or_decode()
        except BaseException:  # an interrupt in this thread, while it runs the jobs of others too
            self._restart_windows()
            raise

    def _run_calls_or_decode(self) -> None:
        """Run the calls that wait; without any, fill the free places and decode one token of each window."""
        if self._calls:
            while self._calls:
                call = self._calls[0]
                call()  # stays in the queue if an interrupt ends it: its caller may be another thread
                with suppress(ValueError):  # an interrupted caller has removed it
                    self._calls.remove(call)
            return
        self._drop_cancelled()
        self._admit()
        if self._places:
            self._decode()

    def _drop_cancelled(self) -> None:
        for attempt, place in [*self._places.items()]:
            if place.job.cancelled:
                del self._places[attempt]
                self._batch.remove(attempt)
        for job in [job for job in [*self._jobs] if job.cancelled]:
            self._jobs.pop(job, None)

    def _admit(self) -> None:
        """Give free places to waiting jobs. A job whose window cannot be encoded fails."""
        admitted: dict[Attempt, Job] = {}
        while self._waiting and len(self._places) + len(admitted) < max(self._max_batch, self._waiting[0].batch_size):
            job = self._waiting.popleft()
            if job.done:
                continue
            try:
                admitted[job.next_attempt()] = job
            except Exception as error:
                self._fail(job, error)
        if not admitted:
            return
        try:
            self._batch.add(list(admitted))
        except Exception as error:
            for job in admitted.values():
                self._fail(job, error)
            return
        windows, now = len(self._places) + len(admitted), self._clock.reading()
        self._places |= {attempt: _Place(job, windows, now) for attempt, job in admitted.items()}

    def _decode(self) -> None:
        prompts = self._batch.prompt_share
        try:
            with self._clock({StageName.PROMPT: prompts, StageName.DECODE: 1 - prompts}, len(self._places)):
                finished = self._batch.step()
        except Exception as error:  # of a step that all windows share
            for place in self._places.values():
                self._fail(place.job, error)
            self._places.clear()
            self._batch.clear()
            return
        for attempt, decoded in finished:
            job, windows, since = self._places.pop(attempt)
            job.session.add_decoding(len(decoded.tokens), windows, self._clock.since(since))
            try:
                job.accept(decoded)
            except Exception as error:
                self._fail(job, error)
            if job.done:
                self._jobs.pop(job, None)
            else:
                self._waiting.append(job)

    def _fail(self, job: Job, error: Exception) -> None:
        job.fail(error)
        self._jobs.pop(job, None)

    def _restart_windows(self) -> None:
        """Empty the batch, whose caches are half written, and let all jobs decode their current windows again."""
        self._batch.clear()
        self._places.clear()
        self._waiting = deque(self._jobs)
        for job in self._jobs:
            job.restart_window()


def run_in_order(scheduler: Scheduler, jobs: Iterator[Job], batch_size: int) -> Iterator[Job]:
    """Run jobs, at most `batch_size` at once; yield the first unfinished one after each of its windows, and each job
    once when it and all before it are done. Jobs that are left when the iterator is closed are cancelled.
    """
    begun: deque[Job] = deque()
    seen = 0  # windows of the first job whose segments were yielded
    try:
        while True:
            while _running(begun) < batch_size and len(begun) < MAX_FINISHED * batch_size and (job := next(jobs, None)):
                scheduler.submit(job)
                begun.append(job)
            if not begun:
                return
            scheduler.run_until(partial(_has_news, begun, seen, _running(begun)))
            while begun and (begun[0].done or begun[0].windows_done > seen):
                done, seen = begun[0].done, begun[0].windows_done
                yield begun[0]
                if done:
                    begun.popleft()
                    seen = 0
    finally:
        for job in begun:
            if not job.done:
                scheduler.cancel(job)


def _running(jobs: Iterable[Job]) -> int:
    return sum(not job.done for job in jobs)


def _has_news(begun: Sequence[Job], seen: int, running: int) -> bool:
    return begun[0].done or begun[0].windows_done > seen or _running(begun) < running


def default_batch_size(window_bytes: int) -> int:
    """How many windows of `window_bytes` each to decode together, from the cores and the free memory."""
    cores = os.cpu_count() or 1
    return max(1, min(MAX_BATCH, 16 * cores, _free_memory() // 4 // window_bytes))


def _free_memory() -> int:
    if sys.platform != "win32":
        with suppress(ValueError, OSError):  # macOS does not tell
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30
