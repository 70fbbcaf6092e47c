"""Run tasks on a Ray cluster, by Ray Data: an actor for each worker, which owns a worker process.

The process is the actor's child, so that a file that ends it becomes an answer, where an actor that dies would be
repeated with the same file for ever. Ray itself repeats the tasks of nodes that are gone.
"""

import logging
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from tilewhisper.engine.bulk.work import Answer, Task, WorkerSettings, lost
from tilewhisper.engine.bulk.worker import Worker, WorkerDied
from tilewhisper.engine.errors import EngineError, OptionError

LOCAL = "local"
"""The address of a cluster that is started here, for this job."""
BATCH = 16
"""Tasks of one call of an actor; two calls at a time keep its worker's batch full."""
CALLS = 2
REACH_SECONDS = 5.0


class RayRunner:
    """Workers on the nodes of a cluster, as many as its CPUs allow."""

    def __init__(self, settings: WorkerSettings, workers: int, address: str) -> None:
        """Connect. `workers` 0 is as many as fit. Raises OptionError."""
        ray = _ray()
        _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as e:
            raise OptionError(f"the Ray cluster at {address} cannot be reached: {_first_line(e)}") from e
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._settings = settings
        self._workers = workers or self._fitting()

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Iterator[Answer]:
        """As `LocalRunner.run`. Raises EngineError."""
        ray = _ray()
        size = 1 if alone else max(1, min(BATCH, len(tasks) // (self._workers * CALLS)))
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        answers = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            RayWorker,
            batch_size=size,
            num_cpus=self._settings.threads,
            fn_constructor_args=(self._settings,),
            compute=ray.data.ActorPoolStrategy(
                min_size=1,  # a lost node's workers are not waited for
                initial_size=self._workers,
                max_size=self._workers,
                max_concurrent_calls_per_actor=1 if alone else CALLS,
                enable_true_multi_threading=not alone,
            ),
        )
        try:
            for row in answers.iter_rows():
                answer: Answer | EngineError = pickle.loads(row["answer"])
                if isinstance(answer, EngineError):
                    raise answer
                yield answer
        except ray.exceptions.RayError as e:
            raise EngineError(f"Ray has ended the job: {_first_line(e)}; the same command goes on") from e

    def close(self) -> None:
        _ray().shutdown()

    def _fitting(self) -> int:
        nodes = [node["Resources"].get("CPU", 0) for node in _ray().nodes() if node["Alive"]]
        if fitting := sum(int(cpus) // self._settings.threads for cpus in nodes):
            return fitting
        raise OptionError(
            f"--threads {self._settings.threads} is more than any node of the cluster has: "
            f"{max(map(int, nodes), default=0)} CPUs"
        )


class RayWorker:
    """The actor."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._worker: Worker | None = None
        self._starting = threading.Lock()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        tasks: list[Task] = [pickle.loads(task) for task in batch["task"]]
        try:
            futures = [(task, self._living().submit(task)) for task in tasks]
        except EngineError as e:  # no worker can start
            return {"answer": [pickle.dumps(e)]}
        return {"answer": [pickle.dumps(_answer(task, future)) for task, future in futures]}

    def _living(self) -> Worker:
        with self._starting:
            if self._worker is None or not self._worker.alive:
                self._worker = Worker(self._settings)
            return self._worker


def _answer(task: Task, future: "Future[Answer]") -> Answer:
    try:
        return future.result()
    except WorkerDied as e:
        return lost(task, str(e))


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as e:
        raise OptionError("--address needs Ray: pip install 'tilewhisper[ray]'") from e
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself tries for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except OSError as e:
        raise OptionError(
            f"the Ray cluster at {address} cannot be reached: {e.strerror or e}; start it, or leave --address out to "
            "work on this machine"
        ) from e


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
