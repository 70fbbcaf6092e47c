"""Jobs whose windows take as many decode steps as a number says; a window's text is its job's name and that number."""

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.job import Job
from tilewhisper.engine.pipeline.prompt import Prompt
from tilewhisper.engine.pipeline.segmenter import WindowRequest


class Attempt(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class FakeBatch:
    """Decodes every attempt for its number of steps. As with real caches, a step cut short leaves it unusable."""

    def __init__(self, before_step=lambda: None):
        self.left: dict[Any, int] = {}
        self.steps, self.history = 0, []
        self.half_written = False
        self._before_step = before_step

    prompt_share = 0.0

    def add(self, attempts):
        self.left |= {attempt: attempt.steps for attempt in attempts}

    def remove(self, attempt):
        del self.left[attempt]

    def clear(self):
        self.left.clear()
        self.half_written = False

    def step(self):
        assert not self.half_written, "the caches are half written"
        self.half_written = True
        self._before_step()
        self.steps += 1
        self.history.append([attempt.name for attempt in self.left])
        self.left = {attempt: steps - 1 for attempt, steps in self.left.items()}
        finished = [attempt for attempt, steps in self.left.items() if steps == 0]
        for attempt in finished:
            del self.left[attempt]
        self.half_written = False
        return [(attempt, decoded(attempt)) for attempt in finished]


def decoded(attempt):
    return DecodedWindow((attempt.name, attempt.steps), -0.1, (-0.1, -0.1), -0.1, 0.0, 0.0, 1.0)


class FakeSession:
    """Encodes nothing; fails at the window whose steps are `fails_at`."""

    def __init__(self, name, fails_at=None):
        self.name, self._fails_at = name, fails_at
        self.options = TranscriptionOptions(language="en")
        self.decoded_beside = []

    @contextmanager
    def clock(self, name):
        yield

    def encode(self, request):
        if request.frames == self._fails_at:
            raise ValueError(f"{self.name} cannot be encoded")
        return SimpleNamespace(steps=request.frames, approximate=False)

    def attempt(self, window, prompt, temperature):
        return Attempt(name=self.name, steps=window.steps)

    def language_of(self, window):
        return "en"

    def task_prompt(self, language):
        return ()

    def align(self, *_): ...

    def add_decoding(self, tokens, batch_size, spent):
        self.decoded_beside.append(batch_size)


class FakeSegmenter:
    """Requests one window after the other, each as many frames long as it takes steps."""

    def __init__(self, steps):
        self._steps = iter(steps)
        self.position = 0
        self.request = None
        self._next()

    def _next(self):
        steps = next(self._steps, None)
        self.request = None if steps is None else WindowRequest(self.position, steps, Prompt())

    def accept(self, result):
        self.position += 1
        self._next()
        return (result.decoded.tokens,)


def job(name, *steps, fails_at=None, batch_size=1) -> Job:
    return Job(FakeSession(name, fails_at), FakeSegmenter(steps), batch_size)
