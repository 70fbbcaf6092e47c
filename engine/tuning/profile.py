"""Where a transcription's time goes: what ran when, from the stages down to each product, and the sums of it.

The engine knows nothing of this. While a pass is recorded, each function whose time is asked for (`_watched`) is stood
in for by one that notes when it starts and ends; before and after, nothing is there that could cost a normal run.
Times are nanoseconds of `time.perf_counter_ns` in spans, seconds in sums. Sums add up by construction: what no span
inside another accounts for is a part of its own.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from threading import get_native_id
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tilewhisper.engine.decoding.batch import Batch
from tilewhisper.engine.decoding.decoder import Decoder
from tilewhisper.engine.decoding.token_rules import TokenRules
from tilewhisper.engine.pipeline import frontend
from tilewhisper.engine.pipeline.transcription import Transcription
from tilewhisper.engine.report import RunReport
from tilewhisper.engine.routing.router import Launch, Router
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels.decoder import DecoderBackend
from tilewhisper.models.audio.log_mel import LogMel

DECODING = ("detect language", "prompt", "decode")
"""The stages that run the decoder."""
STEP = "step"


class Span(NamedTuple):
    """One call of a watched function. A named tuple: thousands are made while time is taken."""

    name: str
    category: str
    function: str
    start: int
    end: int
    thread: int
    inputs: tuple[Sequence[int], ...] = ()
    """Shapes of the tensors among the arguments, and in lists of them; a launch's weights come last."""
    output: Sequence[int] | None = None
    """The result's shape, where it is a tensor."""

    @property
    def multiply_adds(self) -> int:
        """Of a product of the encoder."""
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
        """Both products of x (batch, positions, ...); more keys, if any, are (batch, heads, n, head_dim)."""
        x, *others = self.inputs
        more = next((shape[-2] for shape in others if len(shape) == 4), 0)
        return 2 * prod(x[:-1]) * (x[-2] + more) * width


@dataclass(frozen=True)
class Recording:
    """One pass over a file."""

    spans: list[Span]
    """In the order in which they ended: the last is the whole pass."""
    report: RunReport

    @property
    def seconds(self) -> float:
        return (self.spans[-1].end - self.spans[-1].start) / 1e9


@dataclass(frozen=True)
class Part:
    """All calls of one kind, or what no call accounts for."""

    name: str
    calls: int
    """0 where it is what is left."""
    seconds: float
    multiply_adds: int = 0
    backend: str = ""


@dataclass(frozen=True)
class Breakdown:
    """One pass taken apart. `stages` add up to `seconds`; `encoder` and `decoder` to the stages that run them."""

    seconds: float
    stages: list[Part]
    encoder: list[Part]
    """By role: a launch's name without its layer."""
    launches: list[Part]
    """The encoder's, one by one."""
    decoder: list[Part]
    steps: int
    """The decoder's: each appends tokens to every open window, its prompt first and then one by one."""
    spans: int
    span_seconds: float
    """What recording one span takes; part of what surrounds it."""
    report: RunReport

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        return asdict(self)


def record(
    model: WhisperModel, file: str, language: str | None, task: str, runs: int, audio_context: str = "auto"
) -> list[Recording]:
    """Transcribe a file `runs` times, after a pass that warms up. Raises ModelsError and EngineError."""
    _transcribe(model, file, language, task, audio_context)
    return [_recorded(model, file, language, task, audio_context) for _ in range(runs)]


def median(recordings: Sequence[Recording]) -> Recording:
    """The one of the median time; the faster of two."""
    return sorted(recordings, key=lambda recording: recording.seconds)[(len(recordings) - 1) // 2]


def breakdown(recording: Recording) -> Breakdown:
    """Take a pass apart."""
    whole = _tree(recording.spans)
    encoding = [stage for stage in whole.children if stage.span.name == "encode"]
    decoding = [stage for stage in whole.children if stage.span.name in DECODING]
    steps = [node for stage in decoding for node in stage.children if node.span.name == STEP]
    used = _backends(recording.report)
    return Breakdown(
        seconds=recording.seconds,
        stages=_parts([whole], "not accounted for"),
        encoder=_parts(encoding, "norms and the rest", _role, used),
        launches=_parts(encoding, "norms and the rest", backends=used),
        decoder=[
            *_parts(steps, "norms and the rest of a step"),
            *(part for part in _parts(decoding, "choice and the rest") if part.name != STEP),
        ],
        steps=len(steps),
        spans=len(recording.spans),
        span_seconds=_span_seconds(),
        report=recording.report,
    )


def chrome_trace(recording: Recording) -> dict[str, Any]:
    """The pass in Chrome's trace event format, for chrome://tracing and Perfetto. Times are microseconds."""
    report, process, begin = recording.report, os.getpid(), recording.spans[-1].start
    backends = {"encoder": _backends(report), "decoder": dict.fromkeys(_DECODER_PRODUCTS, report.decoder.used)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"tilewhisper {report.model}"}}
    ]
    for span in sorted(recording.spans, key=lambda span: span.start):
        backend = backends.get(span.category, {}).get(span.name)
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": span.category,
                "pid": process,
                "tid": span.thread,
                "ts": (span.start - begin) / 1e3,
                "dur": (span.end - span.start) / 1e3,
                "args": {
                    "function": span.function,
                    **({"in": span.inputs} if span.inputs else {}),
                    **({"out": span.output} if span.output else {}),
                    **({"backend": backend} if backend else {}),
                },
            }
        )
    about = {"file": report.file, "model": report.model, "policy": report.policy, "cpu": report.machine.cpu}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


_ENCODER_PRODUCTS = (
    "conv_gelu", "linear", "norm_linear", "linear_gelu", "linear_add", "feed_forward", "matmul", "attention",
    "encoder_layer",
)  # fmt: skip
"""The router's functions."""

_DECODER_PRODUCTS = {
    "layers": ("decoder_layers",),
    "linear layer": ("linear", "norm_linear", "linear_gelu", "linear_add"),
    "self-attention": ("self_attention",),
    "cross-attention": ("cross_attention",),
    "cross-attention K/V": ("pack_cross_kv",),
}
"""A decoder's functions of a backend, by what they are in a table."""


def _on_backend(backend: DecoderBackend) -> Iterator[tuple[str, str]]:
    """The functions to watch, and what they are. Layers that are put together from the others are shown as these;
    those that are a single call of native code have no parts that could be timed."""
    composed = type(backend).decoder_layers is DecoderBackend.decoder_layers
    for name, functions in _DECODER_PRODUCTS.items():
        yield from ((function, name) for function in functions if not (composed and name == "layers"))


def _watched(model: WhisperModel) -> Iterator[tuple[Any, str, str, str | Callable[..., str]]]:
    """Whose function of which name to watch, its category, and what to call it."""
    yield frontend, "next_block", "stage", "decode audio"
    yield LogMel, "append", "stage", "log-mel"
    yield LogMel, "finish", "stage", "log-mel"
    yield model, "encode_window", "stage", "encode"
    yield model, "project_cross_kv", "stage", "keys and values"
    yield model, "detect_language", "stage", "detect language"
    yield Batch, "step", "stage", lambda batch: "prompt" if batch.prompt_share else "decode"
    yield model, "align", "stage", "word times"
    for product in _ENCODER_PRODUCTS:
        yield Router, product, "encoder", lambda router, launch, *_: launch.name
    yield Decoder, "step", "decoder", STEP
    yield Decoder, "logits", "decoder", "vocabulary"
    yield Decoder, "rescore", "decoder", "likeliest scores made exact"
    yield TokenRules, "forbid", "decoder", "token rules"
    yield TokenRules, "prefer_timestamps", "decoder", "token rules"
    for function, name in _on_backend(model.decoder_plan.backend):
        yield model.decoder_plan.backend, function, "decoder", name


def _recorded(model: WhisperModel, file: str, *speech: str | None) -> Recording:
    spans: list[Span] = []
    whole = SimpleNamespace(transcribe=_transcribe)
    with ExitStack() as watches:
        for watched in (*_watched(model), (whole, "transcribe", "run", "transcribe")):
            watches.enter_context(_watch(spans, *watched))
        done = whole.transcribe(model, file, *speech)
    return Recording(spans, done.report())


def _transcribe(model: WhisperModel, file: str, language: str | None, task: str, audio_context: str) -> Transcription:
    segments, _ = model.transcribe(file, language, task, audio_context=audio_context, beam_size=1, temperature=0)
    for _ in segments:
        pass
    return segments


@contextmanager
def _watch(
    spans: list[Span], owner: Any, function: str, category: str, name: str | Callable[..., str]
) -> Iterator[None]:
    """Inside, calls of `owner.function` (an object's, a class's or a module's) add to `spans`."""
    original, own = getattr(owner, function), vars(owner).get(function)

    def recorded(*args: Any, **options: Any) -> Any:
        called = name if isinstance(name, str) else name(*args)
        start = time.perf_counter_ns()
        result = original(*args, **options)
        end = time.perf_counter_ns()
        weights = [weight for value in args if isinstance(value, Launch) for weight in value.weights]
        inputs = tuple(tensor.shape for tensor in _tensors((*args, *options.values(), weights)))
        output = result.shape if isinstance(result, Tensor) else None
        spans.append(Span(called, category, function, start, end, get_native_id(), inputs, output))
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


def _span_seconds(calls: int = 2000) -> float:
    """What recording a call costs, from calls that do nothing."""
    idle, x, spans = SimpleNamespace(call=lambda x, y: x), torch.zeros(1, 1), list[Span]()
    with _watch(spans, idle, "call", "", ""):
        start = time.perf_counter()
        for _ in range(calls):
            idle.call(x, x)
        return (time.perf_counter() - start) / calls


@dataclass
class _Node:
    span: Span
    children: "list[_Node]" = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.span.end - self.span.start) / 1e9


def _tree(spans: Iterable[Span]) -> _Node:
    """The span of the whole pass with those inside it, inside each other, on its thread."""
    *_, last = spans
    whole = _Node(last)
    path = [whole]
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span is last or span.thread != last.thread:
            continue
        while path[-1].span.end <= span.start:
            path.pop()
        node = _Node(span)
        path[-1].children.append(node)
        path.append(node)
    return whole


def _parts(
    nodes: Sequence[_Node],
    rest: str,
    named: Callable[[str], str] = str,
    backends: dict[str, str] | None = None,
) -> list[Part]:
    """What lies directly inside the nodes, by `named` of its name in order of first appearance, and what is left."""
    groups: defaultdict[str, list[_Node]] = defaultdict(list)
    for node in nodes:
        for child in node.children:
            groups[named(child.span.name)].append(child)
    parts = [
        Part(
            name,
            len(group),
            sum(node.seconds for node in group),
            sum(node.span.multiply_adds for node in group if node.span.category == "encoder"),
            (backends or {}).get(name, ""),
        )
        for name, group in groups.items()
    ]
    inside = sum(part.seconds for part in parts)
    return [*parts, Part(rest, 0, sum(node.seconds for node in nodes) - inside)]


def _backends(report: RunReport) -> dict[str, str]:
    """What ran the encoder's products, by launch and by role."""
    used: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for site in report.sites:
        used[site.launch] |= site.used
        used[_role(site.launch)] |= site.used
    return {name: ", ".join(labels) for name, labels in used.items()}


def _role(launch: str) -> str:
    """`layers.3.fc1` -> `fc1`"""
    return launch.split(".", 2)[2] if launch.startswith("layers.") else launch
