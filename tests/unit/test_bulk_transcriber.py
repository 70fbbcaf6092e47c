"""A worker's transcriber with a stand-in for the model: which threads read and wait, and what becomes of faults."""

import os
import queue
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from made_audio import SAMPLE

from tilewhisper.engine.bulk import transcriber
from tilewhisper.engine.bulk.work import Item, SpanResult, Task, WorkerSettings

BATCH = 8
SECONDS = 20.0


class Text:
    """A transcription whose text is there once `BATCH` of them are waited for."""

    info = SimpleNamespace(language_probability=1.0)

    def __init__(self, everyone: threading.Barrier) -> None:
        self._everyone = everyone

    def __iter__(self):
        self._everyone.wait(SECONDS)
        return iter(())

    def report(self) -> SimpleNamespace:
        cost = SimpleNamespace(wall_seconds=1.0, cpu_seconds=1.0)
        audio = SimpleNamespace(damage=None)
        return SimpleNamespace(language="en", audio_seconds=1.0, total=cost, sites=[], audio=audio)


@pytest.fixture
def answers(monkeypatch) -> Callable[..., list[SpanResult]]:
    """Answers to tasks by a model that begins a recording with `begin`."""

    def of(tasks: list[Task], begin: Callable[..., Text]) -> list[SpanResult]:
        model = SimpleNamespace(check=lambda options: None, start_loop=lambda: None, begin=begin)
        model.runtime = SimpleNamespace(window_bytes=lambda options: 1)
        monkeypatch.setattr(transcriber, "WhisperModel", lambda *args, **options: model)
        found: queue.Queue[SpanResult] = queue.Queue()
        worker = transcriber.Transcriber(WorkerSettings("tiny.en", "int8", threads=1, batch_size=BATCH))
        for task in tasks:
            worker.submit(task, found.put)
        return [found.get(timeout=SECONDS) for _ in tasks]

    return of


def test_a_few_threads_read_for_all_that_wait(answers):
    readers: set[int] = set()
    everyone = threading.Barrier(BATCH)

    def begin(path: str, **options: object) -> Text:
        readers.add(threading.get_ident())
        return Text(everyone)

    found = answers([Item(str(SAMPLE))] * BATCH, begin)
    assert not any(result.error for result in found)  # all of a batch were waited for at once
    assert len(readers) <= transcriber.LEAST_READERS


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("strange")])
def test_a_fault_of_a_recording_is_its_answer(answers, error):
    def begin(path: str, **options: object) -> Text:
        raise error

    (found,) = answers([Item(str(SAMPLE))], begin)
    assert found.error == f"{type(error).__name__}: {error}"


def test_a_fault_while_the_text_is_decoded_is_an_answer(answers):
    broken = threading.Barrier(2)
    broken.abort()
    (found,) = answers([Item(str(SAMPLE))], lambda path, **options: Text(broken))
    assert "BrokenBarrierError" in found.error


def test_a_part_after_the_end_of_the_recording_is_an_error(answers):
    (found,) = answers([Item(str(SAMPLE), start=1000.0)], lambda samples, **options: pytest.fail("nothing to decode"))
    assert found.error == f"{SAMPLE}: ends before 1000 s, where the part begins"


@pytest.mark.parametrize("url", ["", "memory://"])
def test_a_recording_that_has_vanished_is_an_error_in_words(answers, url):
    if url:
        pytest.importorskip("fsspec")
    (found,) = answers([Item(f"{url}gone.flac")], lambda path, **options: pytest.fail("nothing to decode"))
    assert re.fullmatch(rf"{url}gone\.flac: no such file( or directory)?", found.error, re.IGNORECASE)


def test_a_pipe_is_an_error_and_nobody_waits_for_it(answers, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.flac")
    (found,) = answers([Item(str(tmp_path / "pipe.flac"))], lambda path, **options: pytest.fail("nothing to decode"))
    assert found.error == f"{tmp_path / 'pipe.flac'}: is a folder, pipe or device; expected a file"
