"""Record which watched functions ran when during a transcription.

While a pass is recorded, each function of `watched_functions` is replaced by a wrapper that notes when it starts and
ends; before and after, nothing slows the engine down. Times are nanoseconds of `time.perf_counter_ns`.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from threading import get_native_id
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tilewhisper.engine.pipeline.transcription import Transcription
from tilewhisper.engine.report import RunReport
from tilewhisper.engine.routing.router import Launch
from tilewhisper.engine.tuning.watched import Category, WatchedFunction, watched_functions
from tilewhisper.engine.whisper_model import WhisperModel


class TraceSpan(NamedTuple):
    """One call of a watched function. A named tuple, because thousands are made while time is measured."""

    name: str
    category: Category
    function: str
    start: int
    end: int
    thread: int
    inputs: tuple[Sequence[int], ...] = ()
    """Shapes of the tensor arguments, including those in lists; a launch's weights come last."""
    output: Sequence[int] | None = None
    """The result's shape if it is a tensor."""

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9

    @property
    def multiply_adds(self) -> int:
        """For a product of the encoder."""
        if self.function == "attention":
            return self._attention_multiply_adds(self.inputs[0][-1] // 3)
        if self.function == "encoder_layer":
            weights = sum(prod(weight) for weight in self.inputs[-4:])
            return prod(self.inputs[0][:-1]) * weights + self._attention_multiply_adds(self.inputs[0][-1])
        if self.function == "conv_gelu":
            _, weight, *_ = self.inputs
            return prod(self.output or ()) * prod(weight[1:])
        if self.function == "feed_forward":
            _, weight, *_ = self.inputs
            return 2 * prod(self.output or ()) * weight[0]
        return prod(self.output or ()) * self.inputs[0][-1]

    def _attention_multiply_adds(self, width: int) -> int:
        """Both products of x (batch, positions, ...); additional keys, if any, are (batch, heads, n, head_dim)."""
        x, *others = self.inputs
        more = next((shape[-2] for shape in others if len(shape) == 4), 0)
        return 2 * prod(x[:-1]) * (x[-2] + more) * width


@dataclass(frozen=True)
class Recording:
    """One pass over a file."""

    spans: list[TraceSpan]
    """In the order in which they ended; the last covers the whole pass."""
    report: RunReport

    @property
    def seconds(self) -> float:
        return self.spans[-1].seconds


def record(
    model: WhisperModel, file: str, language: str | None, task: str, runs: int, audio_context: str = "auto"
) -> list[Recording]:
    """Transcribe a file `runs` times, after a warm-up pass. Raises ModelsError and EngineError."""
    _transcribe(model, file, language, task, audio_context)
    return [_record_pass(model, file, language, task, audio_context) for _ in range(runs)]


def median_recording(recordings: Sequence[Recording]) -> Recording:
    """The recording with the median time; the faster of the two middle ones of an even number."""
    return sorted(recordings, key=lambda recording: recording.seconds)[(len(recordings) - 1) // 2]


def seconds_per_span(calls: int = 2000) -> float:
    """Measure the cost of recording one call, with calls that do nothing."""
    idle, x, spans = SimpleNamespace(call=lambda x, y: x), torch.zeros(1, 1), list[TraceSpan]()
    with _watch(spans, WatchedFunction(idle, "call", Category.RUN, "")):
        start = time.perf_counter()
        for _ in range(calls):
            idle.call(x, x)
        return (time.perf_counter() - start) / calls


def _record_pass(model: WhisperModel, file: str, *options: str | None) -> Recording:
    spans: list[TraceSpan] = []
    whole = SimpleNamespace(transcribe=_transcribe)
    with ExitStack() as watches:
        for watched in (*watched_functions(model), WatchedFunction(whole, "transcribe", Category.RUN, "transcribe")):
            watches.enter_context(_watch(spans, watched))
        segments = whole.transcribe(model, file, *options)
    return Recording(spans, segments.report())


def _transcribe(model: WhisperModel, file: str, language: str | None, task: str, audio_context: str) -> Transcription:
    segments, _ = model.transcribe(file, language, task, audio_context=audio_context, beam_size=1, temperature=0)
    for _ in segments:
        pass
    return segments


@contextmanager
def _watch(spans: list[TraceSpan], watched: WatchedFunction) -> Iterator[None]:
    """Add a span for each call of the function, as long as the context is open."""
    owner, function, category, span = watched
    original, own = getattr(owner, function), vars(owner).get(function)

    def recorded(*args: Any, **options: Any) -> Any:
        name = span if isinstance(span, str) else span(*args)
        start = time.perf_counter_ns()
        result = original(*args, **options)
        end = time.perf_counter_ns()
        weights = [weight for value in args if isinstance(value, Launch) for weight in value.weights]
        inputs = tuple(tensor.shape for tensor in _tensors((*args, *options.values(), weights)))
        output = result.shape if isinstance(result, Tensor) else None
        spans.append(TraceSpan(name, category, function, start, end, get_native_id(), inputs, output))
        return result

    setattr(owner, function, recorded)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, function)
        else:
            setattr(owner, function, own)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)
