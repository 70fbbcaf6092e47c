"""Run tasks on worker processes of this machine."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from tilewhisper.engine.bulk.work import Answer, Task, WorkerSettings, lost
from tilewhisper.engine.bulk.worker import Worker, WorkerDied


class LocalRunner:
    """Some workers, each with a model of its own; the weights' pages are shared."""

    def __init__(self, settings: WorkerSettings, workers: int) -> None:
        self._settings, self._count = settings, workers
        self._workers: list[Worker] = []

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Iterator[Answer]:
        """Yield each task's answer, in the order of completion. Raises EngineError where no worker can start.

        `alone` gives a worker one task at a time, so that no other is lost with it.
        """
        left = deque(tasks)
        running: dict[Future[Answer], tuple[Worker, Task]] = {}
        while left or running:
            workers = self._alive(min(self._count, len(left) + len(running)))
            tasks_of = Counter(worker for worker, _ in running.values())
            while left:
                worker = min(workers, key=lambda worker: tasks_of[worker])  # a few long spans are spread over all
                if tasks_of[worker] >= (1 if alone else worker.capacity):
                    break
                task = left.popleft()
                running[worker.submit(task)] = worker, task
                tasks_of[worker] += 1
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                _, task = running.pop(future)
                try:
                    yield future.result()
                except WorkerDied as e:
                    yield lost(task, str(e))

    @property
    def pids(self) -> list[int]:
        """Of the workers that have started."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _alive(self, needed: int) -> list[Worker]:
        """The living workers, and new ones in place of the dead."""
        self._workers = [worker for worker in self._workers if worker.alive]
        while len(self._workers) < needed:
            self._workers.append(Worker(self._settings))
        return self._workers
