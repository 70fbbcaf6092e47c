"""The records of a bulk transcription: an item of its input, a span of work, and a span's result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tilewhisper.models.checkpoint.locate import Source


@dataclass(frozen=True)
class Item:
    """A recording, or the part of it from `start` to `end`. Its options go before those of the whole job."""

    path: str
    """A path or URL."""
    start: float = 0.0
    """Seconds."""
    end: float | None = None
    """Seconds; None is the end of the recording."""
    language: str | None = None
    task: str | None = None
    prompt: str | None = None

    @property
    def id(self) -> str:
        """Equal for items that ask for the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def options(self) -> dict[str, Any]:
        """Its own fields of TranscriptionOptions."""
        given = {"language": self.language, "task": self.task, "initial_prompt": self.prompt}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Content:
    """What the file of an item holds: `sha256` of its bytes, and how to see that it may have changed."""

    size: int = 0
    """Bytes."""
    version: str = ""
    """Its time of change, or a remote store's tag of it."""
    sha256: str = ""


@dataclass(frozen=True)
class Span:
    """A part of an item that one worker transcribes: all of it, unless it is long."""

    item: Item
    content: Content
    start: float
    """Seconds of the recording."""
    end: float | None
    number: int = 0
    of: int = 1
    """How many spans the item has."""


def whole(item: Item, content: Content) -> Span:
    """The item as one span."""
    return Span(item, content, item.start, item.end)


@dataclass(frozen=True)
class SpanResult:
    """A span's transcript, or why it has none."""

    span: Span
    segments: Sequence[Mapping[str, Any]] = ()
    """As in openai-whisper's JSON, with the times of the recording."""
    language: str | None = None
    language_probability: float | None = None
    audio_seconds: float = 0.0
    work_seconds: float = 0.0
    """Wall time from its opening to its last token, which it may share with other spans."""
    cpu_seconds: float = 0.0
    backends: Sequence[str] = ()
    worker: str = ""
    """Machine and process."""
    damage: str | None = None
    """What is missing of a damaged file."""
    error: str | None = None
    lost: bool = False
    """Whether its worker ended without an answer; `error` says how."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        span = fields["span"]
        item, content = Item(**span["item"]), Content(**span["content"])
        return cls(**{**fields, "span": Span(**{**span, "item": item, "content": content})})


Task = Item | Span
"""What a worker is given: an item, which it cuts into spans if it is long and else transcribes, or one span."""
Answer = SpanResult | tuple[Span, ...]


def lost(task: Task, reason: str) -> SpanResult:
    """The answer to a task whose worker ended."""
    span = task if isinstance(task, Span) else whole(task, Content())
    return SpanResult(span, error=reason, lost=True)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker loads, and how it transcribes."""

    model: str | Source
    """Where all workers have the same files, those files; else a name, which each machine resolves for itself."""
    policy: str
    backends: Sequence[str] = ()
    npu: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TranscriptionOptions that all items share."""
    threads: int = 0
    """0 is torch's own number."""
    batch_size: int | None = None
    """How many items are decoded together; None is chosen by cores and memory."""
