"""Sum the spans of a recording: by stage, by product of the encoder, by kind of work in the decoder.

The parts of each table add up to its total by construction: time that no span covers is a part of its own. Times are
seconds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tilewhisper.engine.report import RunReport, StageName
from tilewhisper.engine.tuning.recording import Recording, TraceSpan, seconds_per_span
from tilewhisper.engine.tuning.watched import STEP, Category

DECODING_STAGES = (StageName.DETECT_LANGUAGE, StageName.PROMPT, StageName.DECODE)
"""The stages that run decoder steps."""


@dataclass(frozen=True)
class Part:
    """All calls of one kind, or the time that no call covers."""

    name: str
    calls: int
    """0 for the time that no call covers."""
    seconds: float
    multiply_adds: int = 0
    backend: str = ""


@dataclass(frozen=True)
class Breakdown:
    """One pass in parts. `stages` add up to `seconds`; `encoder` and `decoder` to the stages that run them."""

    seconds: float
    stages: list[Part]
    encoder: list[Part]
    """By role: a launch's name without its layer."""
    launches: list[Part]
    """The encoder's launches, each on its own."""
    decoder: list[Part]
    steps: int
    """Decoder steps: each appends tokens to every open window, first its prompt, then one token at a time."""
    spans: int
    seconds_per_span: float
    """Cost of recording one span, which is part of the span around it."""
    report: RunReport

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        return asdict(self)


def breakdown(recording: Recording) -> Breakdown:
    whole = _tree(recording.spans)
    encoding = [stage for stage in whole.children if stage.span.name == StageName.ENCODE]
    decoding = [stage for stage in whole.children if stage.span.name in DECODING_STAGES]
    steps = [node for stage in decoding for node in stage.children if node.span.name == STEP]
    backends = encoder_backends(recording.report)
    return Breakdown(
        seconds=recording.seconds,
        stages=_parts([whole], "other"),
        encoder=_parts(encoding, "norms and other", _role, backends),
        launches=_parts(encoding, "norms and other", backends=backends),
        decoder=[
            *_parts(steps, "norms and other in a step"),
            *(part for part in _parts(decoding, "token selection and other") if part.name != STEP),
        ],
        steps=len(steps),
        spans=len(recording.spans),
        seconds_per_span=seconds_per_span(),
        report=recording.report,
    )


def encoder_backends(report: RunReport) -> dict[str, str]:
    """The backends that ran the encoder's products, by launch and by role."""
    used: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for site in report.sites:
        used[site.launch] |= site.used
        used[_role(site.launch)] |= site.used
    return {name: ", ".join(labels) for name, labels in used.items()}


@dataclass
class _Node:
    span: TraceSpan
    children: "list[_Node]" = field(default_factory=list)


def _tree(spans: Iterable[TraceSpan]) -> _Node:
    """Nest the spans by time under the span of the whole pass; only spans of its thread."""
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
    remainder: str,
    group_name: Callable[[str], str] = str,
    backends: dict[str, str] | None = None,
) -> list[Part]:
    """Group the nodes' direct children by name, in order of first appearance; `remainder` names the uncovered time."""
    groups: defaultdict[str, list[TraceSpan]] = defaultdict(list)
    for node in nodes:
        for child in node.children:
            groups[group_name(child.span.name)].append(child.span)
    parts = [
        Part(
            name,
            len(group),
            sum(span.seconds for span in group),
            sum(span.multiply_adds for span in group if span.category == Category.ENCODER),
            (backends or {}).get(name, ""),
        )
        for name, group in groups.items()
    ]
    covered = sum(part.seconds for part in parts)
    return [*parts, Part(remainder, 0, sum(node.span.seconds for node in nodes) - covered)]


def _role(launch: str) -> str:
    """`layers.3.fc1` -> `fc1`"""
    return launch.split(".", 2)[2] if launch.startswith("layers.") else launch
