"""The row of an item: joined from the results of its spans."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from tilewhisper.engine.bulk.work import Content, Item, SpanResult


@dataclass(frozen=True)
class Row:
    """An item's transcript, or why it has none. The fields are the columns of Parquet and the keys of JSON Lines."""

    path: str
    start: float
    end: float | None
    asked: Sequence[str | None]
    """The item's own language, task and prompt."""
    id: str
    """Of the item: equal where the same was asked."""
    sha256: str
    """Of the file's bytes."""
    size: int
    version: str
    text: str
    segments: Sequence[Mapping[str, Any]]
    """As in openai-whisper's JSON, with words if they were asked for; times are those of the recording."""
    language: str | None
    language_probability: float | None
    seconds: float
    """Of audio."""
    work_seconds: float
    cpu_seconds: float
    """Of all threads."""
    rtf: float | None
    backends: Sequence[str]
    workers: Sequence[str]
    """Machine and process of each."""
    damage: str | None
    """What is missing of a damaged file."""
    error: str | None

    @property
    def content(self) -> Content:
        return Content(self.size, self.version, self.sha256)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**fields)


def joined(item: Item, results: Sequence[SpanResult]) -> Row:
    """The row of an item of which all spans have a result, in their order. One that failed fails the item."""
    content = results[0].span.content
    error = next((result.error for result in results if result.error), None)
    good = [] if error else results
    segments = [segment for result in good for segment in result.segments]
    seconds, work = sum(result.audio_seconds for result in good), sum(result.work_seconds for result in good)
    return Row(
        path=item.path,
        start=item.start,
        end=item.end,
        asked=[item.language, item.task, item.prompt],
        id=item.id,
        sha256=content.sha256,
        size=content.size,
        version=content.version,
        text="".join(segment["text"] for segment in segments),
        segments=[{**segment, "id": number} for number, segment in enumerate(segments)],
        language=good[0].language if good else None,
        language_probability=good[0].language_probability if good else None,
        seconds=seconds,
        work_seconds=work,
        cpu_seconds=sum(result.cpu_seconds for result in good),
        rtf=work / seconds if seconds else None,
        backends=sorted({name for result in good for name in result.backends}),
        workers=sorted({result.worker for result in good}),
        damage=next((result.damage for result in good if result.damage), None),
        error=error,
    )
