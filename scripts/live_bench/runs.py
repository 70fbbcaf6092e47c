"""One clip, fed in real time as chunks of 100 ms: when which text came, and what it cost."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilewhisper import Final, LiveOptions, LiveTranscriber, Partial, WhisperModel
from tilewhisper.engine.pipeline.agreement import revisions
from tilewhisper.engine.results import Word
from tilewhisper.models.constants import SAMPLE_RATE

CHUNK = SAMPLE_RATE // 10

Samples = npt.NDArray[np.float32]


@dataclass
class Outcome:
    """The result of a run; times are seconds since the clip began to play."""

    text: str = ""
    final: list[tuple[float, float]] = field(default_factory=list)
    """For each final word: its end in the clip, and when it was final."""
    first_text: float | None = None
    revisions: int = 0
    busy_seconds: float | None = None
    """In calls of the engine; None for one that works in threads of its own."""
    cpu_seconds: float = 0.0

    def saw_text(self, now: float) -> None:
        self.first_text = now if self.first_text is None else self.first_text


Run = Callable[[Samples], Outcome]


def ours(model: WhisperModel, language: str) -> Run:
    """Runs of `LiveTranscriber`."""

    def run(samples: Samples) -> Outcome:
        outcome, live = Outcome(), LiveTranscriber(model, options=LiveOptions(language=language))
        shown: tuple[Word, ...] = ()
        newly_final: tuple[Word, ...] = ()
        busy, cpu, began = 0.0, time.process_time(), time.monotonic()
        for arrived in in_real_time(samples, began):
            called = time.monotonic()
            events = live.finish() if arrived is None else live.feed(arrived)
            busy += time.monotonic() - called
            now = time.monotonic() - began
            for event in events:
                if isinstance(event, Partial | Final) and event.text.strip():
                    outcome.saw_text(now)
                if isinstance(event, Final):
                    outcome.text += event.text
                    outcome.final += [(word.end, now) for word in event.words]
                    newly_final += event.words
                elif isinstance(event, Partial):
                    outcome.revisions += revisions(shown, (*newly_final, *event.words))
                    shown, newly_final = event.words, ()
        outcome.busy_seconds, outcome.cpu_seconds = busy, time.process_time() - cpu
        return outcome

    return run


def in_real_time(samples: Samples, began: float) -> Iterator[Samples | None]:
    """What has arrived since the last time, in whole chunks, as a client sends them; None at the end."""
    taken = 0
    while taken < len(samples):
        due = began + min(taken + CHUNK, len(samples)) / SAMPLE_RATE
        time.sleep(max(0.0, due - time.monotonic()))
        arrived = int((time.monotonic() - began) * SAMPLE_RATE) // CHUNK * CHUNK
        last = min(max(arrived, taken + CHUNK), len(samples))
        yield samples[taken:last]
        taken = last
    yield None
