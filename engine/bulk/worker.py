"""A worker: a process with a warm model, which may die without taking anything else with it.

A file that crashes a decoder, or a system without memory, ends the worker alone; its unanswered tasks are then told so.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future
from functools import partial
from multiprocessing.connection import Connection

from tilewhisper.engine.bulk.work import Answer, Task, WorkerSettings
from tilewhisper.engine.errors import EngineError


class WorkerDied(Exception):  # noqa: N818 (reads as the fact it states)
    """The worker ended without an answer."""


class Worker:
    """Starts the process, gives it tasks, and hands over its answers. Used from any thread."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Raises EngineError where the process cannot load the model."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, settings), name="tilewhisper worker", daemon=True)
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()
        self._futures: dict[int, Future[Answer]] = {}
        self._number = 0
        self.capacity = self._first_answer()
        """How many tasks keep it busy."""
        threading.Thread(target=self._read, daemon=True).start()

    def submit(self, task: Task) -> "Future[Answer]":
        """Its future gives the answer, or raises WorkerDied."""
        future: Future[Answer] = Future()
        with self._lock:
            self._number += 1
            self._futures[self._number] = future
            try:
                self._connection.send((self._number, task))
            except OSError:
                del self._futures[self._number]
                future.set_exception(WorkerDied(self._end()))
        return future

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def close(self) -> None:
        """End the process; what it has not answered is lost."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _first_answer(self) -> int:
        try:
            loaded: int | str = self._connection.recv()
        except EOFError:
            raise EngineError(f"a worker ended while it loaded the model: {self._end()}") from None
        if isinstance(loaded, str):
            raise EngineError(loaded)
        return loaded

    def _read(self) -> None:
        try:
            while True:
                number, answer = self._connection.recv()
                with self._lock:
                    future = self._futures.pop(number)
                future.set_result(answer)
        except (EOFError, OSError):
            reason = self._end()
            with self._lock:
                left, self._futures = list(self._futures.values()), {}
            for future in left:
                future.set_exception(WorkerDied(reason))

    def _end(self) -> str:
        self._process.join(10)
        return described(self._process.exitcode)


def described(code: int | None) -> str:
    """A process's exit code in words."""
    if code == -signal.SIGKILL if hasattr(signal, "SIGKILL") else False:
        return "its worker was killed, as the system does when memory runs out"
    if code is not None and code < 0:
        return f"its worker was ended by signal {signal.Signals(-code).name}"
    return f"its worker ended with exit code {code}"


def serve(connection: Connection, settings: WorkerSettings) -> None:
    """The process: answer tasks until the connection is closed."""
    from tilewhisper.engine.bulk.transcriber import Transcriber
    from tilewhisper.engine.errors import USER_ERRORS

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    try:
        transcriber = Transcriber(settings)
    except USER_ERRORS as e:
        connection.send(str(e))
        return
    connection.send(transcriber.capacity)
    sending = threading.Lock()

    def send(number: int, answer: Answer) -> None:
        with sending:
            connection.send((number, answer))

    while True:
        try:
            number, task = connection.recv()
        except (EOFError, OSError):  # the parent has ended, however it did
            os._exit(0)
        transcriber.submit(task, partial(send, number))
