"""Forked processes use the models of their parent, and the parent goes on: never a hang.

Each child has a time limit. Torch computes with 2 threads, because GNU's OpenMP has workers only then.
"""

import multiprocessing
import threading
import time
import traceback

import numpy as np
import pytest
import torch
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine.errors import ForkError, ModelClosed
from tilewhisper.kernels.base import Settings
from tilewhisper.kernels.cpu import build

SECONDS = 120
"""A child takes about one; more only where the machine is busy."""

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork processes"
)


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_child(function):
    """The function's result in a forked process, or its traceback."""
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)

    def run():
        try:
            sending.send(function())
        except BaseException:
            sending.send(traceback.format_exc())

    child = fork.Process(target=run)
    child.start()
    try:
        assert receiving.poll(SECONDS), "the child hangs"
        return receiving.recv()
    finally:
        child.kill()
        child.join()


def text(model):
    return "".join(segment.text for segment in model.transcribe(SAMPLE, language="en", beam_size=1)[0])


@pytest.mark.parametrize(
    ("policy", "used", "threads"),
    [("cpu", True, 2), ("int8", True, 2), ("torch", True, 2), ("cpu", False, 2), ("cpu", True, 1)],
)
def test_a_child_and_its_parent_both_transcribe(policy, used, threads):
    with WhisperModel(require_weights("tiny.en"), policy=policy, cpu_threads=threads) as model:
        if used:
            text(model)
        assert in_child(lambda: (text(model), text(model), torch.get_num_threads())) == (*[text(model)] * 2, threads)
        assert in_child(lambda: text(model)) == text(model)


def test_a_child_loads_a_model_of_its_own():
    with WhisperModel(require_weights("tiny.en"), policy="torch") as model:
        expected = text(model)
    assert in_child(lambda: text(WhisperModel("tiny.en", policy="torch", cpu_threads=2))) == expected


def test_a_child_of_a_child_and_a_fork_in_another_thread():
    with WhisperModel(require_weights("tiny.en")) as model:
        expected, found = text(model), []
        thread = threading.Thread(target=lambda: found.append(in_child(lambda: in_child(lambda: text(model)))))
        thread.start()
        thread.join()
        assert found == [expected]


def test_a_fork_while_other_threads_transcribe():
    noise = np.random.default_rng(0).standard_normal(16000 * 30).astype(np.float32) * 0.1
    with WhisperModel(require_weights("tiny.en")) as model:
        expected, ended = text(model), threading.Event()

        def work():
            while not ended.is_set():
                list(model.transcribe(noise, language="en", no_speech_threshold=None, beam_size=1)[0])

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        try:
            for pause in (0.0, 0.1, 0.3):
                time.sleep(pause)
                assert in_child(lambda: text(model)) == expected
            assert all(worker.is_alive() for worker in workers)
        finally:
            ended.set()
            for worker in workers:
                worker.join()
        assert text(model) == expected


def test_a_fork_while_a_thread_waits_for_its_files_language():
    with WhisperModel(require_weights("tiny.en")) as model:
        expected, call = text(model), model._scheduler.call
        waits, go_on = threading.Event(), threading.Event()

        def call_later(function):
            if threading.current_thread() is thread:
                waits.set()
                assert go_on.wait(SECONDS)
            return call(function)

        model._scheduler.call = call_later
        thread = threading.Thread(target=lambda: model.transcribe(SAMPLE, language="en"))
        thread.start()
        try:
            assert waits.wait(SECONDS)
            assert in_child(lambda: text(model)) == expected
        finally:
            go_on.set()
            thread.join()


def test_a_transcription_goes_on_in_the_parent_alone():
    audio = np.zeros(16000 * 90, np.float32)
    with WhisperModel(require_weights("tiny.en")) as model:
        options = {"language": "en", "no_speech_threshold": None, "temperature": 0, "max_new_tokens": 5}
        expected = [segment.id for segment in model.transcribe(audio, **options)[0]]
        segments, _ = model.transcribe(audio, **options)
        next(segments)

        def go_on():
            try:
                return list(segments)
            except ForkError as error:
                return str(error)

        assert (
            in_child(go_on) == "this transcription began before the process was forked; start it again in this process"
        )
        assert [segment.id for segment in segments] == expected[1:]


def test_a_model_on_a_device_is_refused_in_a_child():
    settings = Settings(npu="emulated")
    with WhisperModel(require_weights("tiny.en"), backends=["layers.0.fc1=npu"], settings=settings) as model:

        def use():
            try:
                model.transcribe(SAMPLE, language="en")
            except ForkError as error:
                return str(error)

        assert "its NPU stayed with the parent process; load the model in this process" in in_child(use)
        assert model.encode(torch.zeros(1, 80, 3000)).isfinite().all()


def test_a_closed_model_stays_closed_in_a_child():
    model = WhisperModel(require_weights("tiny.en"))
    model.close()

    def use():
        with pytest.raises(ModelClosed):
            text(model)
        return "refused"

    assert in_child(use) == "refused"


def test_a_fork_while_another_thread_compiles_the_kernels(monkeypatch):
    """The child does not wait for the lock of a thread that it does not have."""
    locked, ended = threading.Event(), threading.Event()

    def compiling():
        with build._one_at_a_time:
            locked.set()
            ended.wait()

    thread = threading.Thread(target=compiling)
    thread.start()
    locked.wait()
    try:
        assert in_child(lambda: SAMPLE_WORDS in text(WhisperModel(require_weights("tiny.en"))).lower()) is True
    finally:
        ended.set()
        thread.join()
