"""The loop of a scheduler: which thread runs its steps, one at a time.

It runs in the thread of a caller that waits (`run_until`). While one runs it, the others sleep until what they wait for
is there, or take the loop over when it becomes free. So a single caller pays for no thread switch, and work is done
when it is asked for. A server, where many threads wait, gives the loop a thread of its own (`start_loop`): every thread
that computes has OpenMP workers of its own, and they would compete.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from tilewhisper.engine.errors import EngineError


class _Sleeper(NamedTuple):
    """A thread that waits in `run_until`."""

    ready: Callable[[], bool]
    wake: threading.Condition


class Loop(ABC):
    """Runs steps in one thread at a time. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._closed: Callable[[], EngineError] | None = None
        """Makes the error of every use."""
        self._start_anew()

    @abstractmethod
    def _step(self) -> None:
        """Do a part of the work."""

    @abstractmethod
    def _has_work(self) -> bool:
        """Whether a step would do anything; the lock is held."""

    def _start_anew(self) -> None:
        self._lock = threading.RLock()
        """Held while work is added or taken away."""
        self._changed = threading.Condition(self._lock)
        """Notified when a step ends and when work arrives: for the loop's own thread, forks and `close`."""
        self._sleepers: list[_Sleeper] = []
        self._thread: threading.Thread | None = None
        """The loop's own."""
        self._stepping: int | None = None
        """The thread that runs a step now."""
        self._forks = 0
        """Forks that wait for the step under way, or copy the process."""

    def check_open(self) -> None:
        """Raise ModelClosed after `close`, or another error of `_refuse`."""
        if self._closed:
            raise self._closed()

    def start_loop(self) -> None:
        """Run all steps in a thread of the loop's own from now on. Raises ModelClosed."""
        with self._lock:
            self.check_open()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tilewhisper-loop", daemon=True)
                self._thread.start()

    def run_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`, which any thread may ask between two steps, and take part in the loop meanwhile.

        Raises ModelClosed, or another error of `_refuse`.
        """
        try:
            while self._may_step(ready):
                self._run_step()
        finally:
            with self._lock:
                self._pass_on()

    def _notify(self) -> None:
        """Say that work has arrived, or that something is ready; the lock is held."""
        for sleeper in self._sleepers:  # a step of 32 jobs must not wake 32 threads, only those it has news for
            if sleeper.ready():
                sleeper.wake.notify()
        self._changed.notify_all()

    def _refuse(self, error: Callable[[], EngineError]) -> None:
        """Refuse every use from now on, and wait for the step under way; the lock is held."""
        self._closed = error
        while self._stepping:
            self._changed.wait()
        self._wake_all()

    def _join(self) -> None:
        """Wait for the end of the loop's own thread after `_refuse`."""
        if thread := self._thread:
            thread.join()

    def before_fork(self) -> bool:
        """Wait for the step under way, and let none start; False in a signal handler that interrupted it."""
        if self._stepping == threading.get_ident():
            return False
        self._lock.acquire()
        self._forks += 1
        try:
            while self._stepping:
                self._changed.wait()
        except BaseException:
            self.after_fork_in_parent()
            raise
        return True

    def after_fork_in_parent(self) -> None:
        """Let the next step start."""
        self._forks -= 1
        self._wake_all()
        self._lock.release()

    def _after_fork(self, error: Callable[[], EngineError] | None) -> None:
        """Start anew in the child: no other thread is in it. With an `error`, every use is refused."""
        self._start_anew()
        self._closed = self._closed or error

    def _may_step(self, ready: Callable[[], bool]) -> bool:
        """Wait until `ready()`, which gives False, or until this thread may run a step."""
        with self._lock:
            sleeper = _Sleeper(ready, threading.Condition(self._lock))
            while not ready():
                if not (self._stepping or self._forks or self._thread):
                    self.check_open()
                    self._stepping = threading.get_ident()
                    return True
                self._sleepers.append(sleeper)
                try:
                    sleeper.wake.wait()
                finally:
                    self._sleepers.remove(sleeper)
            return False

    def _run(self) -> None:
        """The work of the loop's own thread."""
        try:
            while self._wait_for_work():
                self._run_step()
        finally:
            with self._lock:
                self._thread = None
                self._pass_on()

    def _wait_for_work(self) -> bool:
        """Wait until a step has something to do; False after `close`."""
        with self._lock:
            while not self._closed and (self._forks or not self._has_work()):
                self._changed.wait()
            self._stepping = None if self._closed else threading.get_ident()
            return not self._closed

    def _run_step(self) -> None:
        try:
            self._step()
        finally:
            with self._lock:
                self._stepping = None
                self._notify()

    def _pass_on(self) -> None:
        """Let a thread that sleeps take over the loop, which this one leaves."""
        if self._sleepers and not (self._stepping or self._thread):
            self._sleepers[0].wake.notify()

    def _wake_all(self) -> None:
        for sleeper in self._sleepers:
            sleeper.wake.notify()
        self._changed.notify_all()
