"""The scheduler over a batch that counts steps: arrivals, order, cancellation, failures, interrupts, closing.

A fake window takes as many decode steps as its number says; its text is its job's name and that number.
"""

import gc
import threading
import time
import weakref
from typing import Any

import pytest
from fake_windows import FakeBatch, job

from tilewhisper.engine.errors import ModelClosed
from tilewhisper.engine.pipeline.scheduler import Scheduler, run_in_order


def texts(scheduler, jobs, batch_size) -> Any:
    """(name, new segments, done) whenever `run_in_order` yields."""
    session: Any
    for one in run_in_order(scheduler, iter(jobs), batch_size):
        session = one.session
        yield session.name, one.take_segments(), one.done


def all_texts(scheduler, jobs, batch_size) -> dict[str, list]:
    found = {}
    for name, segments, _ in texts(scheduler, jobs, batch_size):
        found.setdefault(name, []).extend(segments)
    return found


def test_jobs_share_steps_and_come_back_in_their_order():
    batch = FakeBatch()
    jobs = [job("long", 5, 4), job("short", 2), job("empty"), job("late", 3)]
    assert list(texts(Scheduler(batch), jobs, 3)) == [
        ("long", [("long", 5)], False),
        ("long", [("long", 4)], True),
        ("short", [("short", 2)], True),
        ("empty", [], True),
        ("late", [("late", 3)], True),
    ]
    assert batch.history[0] == ["long", "short", "late"]
    assert batch.steps == 9


def test_no_more_jobs_run_at_once_than_the_caller_or_the_scheduler_allows():
    for batch_size, max_batch in ((2, 32), (5, 3)):
        batch = FakeBatch()
        jobs = [job(f"{i}", 1 + i % 3) for i in range(12)]
        all_texts(Scheduler(batch, max_batch), jobs, batch_size)
        assert max(map(len, batch.history)) == min(batch_size, max_batch)


def test_a_caller_may_ask_for_more_than_the_default():
    batch = FakeBatch()
    all_texts(Scheduler(batch, max_batch=2), [job(f"{i}", 2, batch_size=6) for i in range(6)], 6)
    assert len(batch.history[0]) == 6


def test_the_next_window_of_a_job_waits_behind_new_jobs():
    batch = FakeBatch()
    all_texts(Scheduler(batch, max_batch=2), [job("a", 1, 1, 1), job("b", 9), job("c", 1)], 3)
    assert batch.history[:4] == [["a", "b"], ["b", "c"], ["b", "a"], ["b", "a"]]


def test_jobs_of_many_threads_are_decoded_together_and_each_gets_its_own():
    started, batch = threading.Barrier(8), FakeBatch(lambda: time.sleep(1e-3))  # so that the others get a chance
    scheduler, found = Scheduler(batch), {}

    def work(i):
        started.wait()
        found.update(all_texts(scheduler, [job(f"{i}", 40 + i, 3, 1 + i)], 1))

    run_threads([lambda i=i: work(i) for i in range(8)])
    assert found == {f"{i}": [(f"{i}", 40 + i), (f"{i}", 3), (f"{i}", 1 + i)] for i in range(8)}
    assert max(map(len, batch.history)) > 1


def test_a_cancelled_job_leaves_before_the_next_step_and_frees_its_place():
    jobs = {"a": job("a", 50), "b": job("b", 4), "c": job("c", 2)}
    batch = FakeBatch(lambda: scheduler.cancel(jobs["a"]) if batch.steps == 1 else None)
    scheduler = Scheduler(batch, max_batch=2)
    assert all_texts(scheduler, jobs.values(), 3) == {"a": [], "b": [("b", 4)], "c": [("c", 2)]}
    assert batch.history == [["a", "b"], ["a", "b"], ["b", "c"], ["b", "c"]]
    assert jobs["a"].cancelled and jobs["a"].error is None


def test_a_job_that_nobody_waits_for_is_cancelled_at_once():
    batch = FakeBatch()
    scheduler = Scheduler(batch)
    running = texts(scheduler, [job("a", 2, 50)], 1)
    next(running)
    scheduler.run_until(lambda: batch.steps == 3)
    assert batch.left
    running.close()  # as when the caller drops the iterator
    assert not batch.left


def test_a_failing_job_leaves_the_others_alone():
    jobs = [job("a", 3, 1), job("b", 1, 2, 1, fails_at=2), job("c", 4)]
    assert all_texts(Scheduler(FakeBatch()), jobs, 3) == {
        "a": [("a", 3), ("a", 1)],
        "b": [("b", 1)],
        "c": [("c", 4)],
    }
    assert [str(one.error) for one in jobs] == ["None", "b cannot be encoded", "None"]


def test_a_failing_step_fails_the_jobs_in_the_batch_and_no_later_ones():
    def fail():
        if batch.steps == 2:
            batch.steps += 1
            raise MemoryError("no memory")

    batch = FakeBatch(fail)
    scheduler, jobs = Scheduler(batch, max_batch=2), [job("a", 5), job("b", 1), job("c", 5), job("d", 1)]
    found = all_texts(scheduler, jobs, 4)
    assert [type(one.error) for one in jobs] == [MemoryError, type(None), MemoryError, type(None)]
    assert found == {"a": [], "b": [("b", 1)], "c": [], "d": [("d", 1)]}


def test_an_interrupt_in_one_thread_loses_nothing_of_the_others():
    """The thread that runs the loop is interrupted; its own iterator ends, all other jobs give what they give alone."""
    interrupted = threading.Event()

    def interrupt():
        if batch.steps == 3 and threading.current_thread() is first and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    batch = FakeBatch(interrupt)
    scheduler, found, raised = Scheduler(batch), {}, []
    other = job("other", 6, 2)

    def run_first():
        scheduler.submit(other)
        try:
            all_texts(scheduler, [job("first", 9)], 1)
        except KeyboardInterrupt:
            raised.append(True)

    def run_second():
        interrupted.wait(10)
        scheduler.run_until(lambda: other.done)
        found["other"] = other.take_segments()

    first = threading.Thread(target=run_first)
    second = threading.Thread(target=run_second)
    for thread in (first, second):
        thread.start()
    for thread in (first, second):
        thread.join(20)
    assert raised == [True]
    assert found == {"other": [("other", 6), ("other", 2)]}


def test_calls_run_between_steps_and_raise_in_their_own_thread():
    scheduler = Scheduler(FakeBatch())
    assert scheduler.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 // 0)

    results = []
    run_threads(
        [
            lambda: results.append(all_texts(scheduler, [job("a", *[2] * 50)], 1)["a"]),
            lambda: results.append([scheduler.call(lambda i=i: i) for i in range(50)]),
        ]
    )
    assert [("a", 2)] * 50 in results and list(range(50)) in results


def test_everything_is_refused_after_close():
    batch = FakeBatch()
    scheduler = Scheduler(batch)
    running = texts(scheduler, first := [job("a", 2, 50)], 1)
    next(running)
    scheduler.run_until(lambda: batch.steps == 3)
    scheduler.close()
    assert not batch.left
    assert list(running) == [("a", [], True)] and isinstance(first[0].error, ModelClosed)
    for refused in (lambda: scheduler.submit(job("b", 1)), lambda: scheduler.call(lambda: 1)):
        with pytest.raises(ModelClosed, match="closed; load it again"):
            refused()


def test_close_ends_threads_that_wait():
    batch = FakeBatch()
    scheduler, errors = Scheduler(batch), []
    running = threading.Event()
    batch._before_step = lambda: running.set() if len(batch.left) == 2 else None

    def work(name):
        one = job(name, 10**9)
        list(run_in_order(scheduler, iter([one]), 1))
        errors.append(type(one.error))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    running.wait(10)
    scheduler.close()
    for thread in threads:
        thread.join(20)
    assert errors == [ModelClosed] * 2


def test_a_fork_waits_for_the_step_under_way_only():
    """The thread in the loop would always start its next step before the forking thread wakes up."""
    batch = FakeBatch(lambda: time.sleep(0.001))
    scheduler, one = Scheduler(batch), job("a", 2000)
    thread = threading.Thread(target=lambda: list(run_in_order(scheduler, iter([one]), 1)))
    thread.start()
    while not batch.steps:
        time.sleep(0.001)
    for _ in range(5):
        before = batch.steps
        assert scheduler.before_fork()
        at_fork = batch.steps
        assert at_fork <= before + 2 and not batch.half_written
        time.sleep(0.05)
        assert batch.steps == at_fork
        scheduler.after_fork_in_parent()
        while batch.steps == at_fork and thread.is_alive():
            time.sleep(0.001)
    scheduler.cancel(one)
    thread.join(20)
    assert not thread.is_alive()


def test_a_fork_in_the_middle_of_a_step_does_not_wait_for_itself():
    """As in a signal handler that interrupts the step."""
    found = []
    scheduler = Scheduler(FakeBatch(lambda: found.append(scheduler.before_fork())))
    assert all_texts(scheduler, [job("a", 2)], 1) == {"a": [("a", 2)]}
    assert found == [False, False]


def test_the_loop_may_have_a_thread_of_its_own():
    """All steps run in it, while the threads that wait are woken for their own news only."""
    stepping, waking = set(), []
    batch = FakeBatch(lambda: stepping.add(threading.current_thread().name))
    scheduler = Scheduler(batch)
    scheduler.start_loop()
    scheduler.start_loop()

    def work(name, *steps):
        one, this = job(name, *steps), threading.current_thread()
        scheduler.submit(one)

        def ready():
            if threading.current_thread() is this:
                waking.append(name)
            return one.done

        scheduler.run_until(ready)
        assert [steps for _, steps in one.take_segments()] == list(steps)
        assert scheduler.call(lambda: threading.current_thread().name) in stepping

    run_threads([lambda i=i: work(f"{i}", 100, 50 + i) for i in range(8)])
    assert len(stepping) == 1 and not stepping & {threading.current_thread().name}
    assert max(map(waking.count, waking)) <= 2  # before it sleeps, and when it is woken
    scheduler.close()
    assert not [thread for thread in threading.enumerate() if thread.name in stepping]
    with pytest.raises(ModelClosed):
        scheduler.start_loop()


def test_close_ends_what_waits_for_the_loops_own_thread():
    batch, errors = FakeBatch(lambda: time.sleep(1e-3)), []
    scheduler = Scheduler(batch)
    scheduler.start_loop()

    def work():
        one = job("a", 10**9)
        list(run_in_order(scheduler, iter([one]), 1))
        errors.append(type(one.error))

    thread = threading.Thread(target=work)
    thread.start()
    while not batch.steps:
        time.sleep(1e-3)
    scheduler.close()
    thread.join(20)
    assert errors == [ModelClosed] and not batch.left


def test_a_fork_stops_the_loops_own_thread_for_its_time():
    batch = FakeBatch(lambda: time.sleep(1e-3))
    scheduler, one = Scheduler(batch), job("a", 10**9)
    scheduler.start_loop()
    scheduler.submit(one)
    while not batch.steps:
        time.sleep(1e-3)
    assert scheduler.before_fork()
    at_fork = batch.steps
    time.sleep(0.05)
    assert batch.steps == at_fork and not batch.half_written
    scheduler.after_fork_in_parent()
    scheduler.run_until(lambda: batch.steps > at_fork)
    scheduler.close()


def test_a_scheduler_that_is_dropped_is_freed_at_once():
    """In a circle of references, the weights of a model would wait for the garbage collector, which looks for small
    objects: a run of the tests held 17 GB."""
    gc.disable()
    try:
        scheduler = Scheduler(FakeBatch())
        all_texts(scheduler, [job("a", 2)], 1)
        freed = weakref.ref(scheduler)
        del scheduler
        assert freed() is None
    finally:
        gc.enable()


def run_threads(works):
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures
