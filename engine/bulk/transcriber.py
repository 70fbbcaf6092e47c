"""A worker's model: transcribes spans, from several threads at once, and turns every fault of a file into a result."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilewhisper.engine.bulk.files import content_of, local_copy
from tilewhisper.engine.bulk.spans import spans_of
from tilewhisper.engine.bulk.work import Answer, Content, Span, SpanResult, Task, WorkerSettings, whole
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.writers import segment_fields
from tilewhisper.engine.pipeline.scheduler import default_batch_size
from tilewhisper.engine.results import Segment
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.reader import stream
from tilewhisper.models.audio.recording import Samples, join
from tilewhisper.models.constants import FRAMES_PER_SECOND, SAMPLE_RATE


class Transcriber:
    """A warm model. Its spans share decode steps."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Load the model. Raises USER_ERRORS."""
        self._model = WhisperModel(
            settings.model,
            cpu_threads=settings.threads,
            policy=settings.policy,
            backends=settings.backends,
            settings=Settings(**settings.npu),
        )
        self._options = dict(settings.options)
        checked = TranscriptionOptions(**self._options)
        self._model.check(checked)
        self.batch_size = settings.batch_size or default_batch_size(self._model.runtime.window_bytes(checked))
        self._model.start_loop()

    def answer(self, task: Task) -> Answer:
        """The spans of a long item, else the transcript. A fault of the file is part of the answer."""
        item, content = (task.item, task.content) if isinstance(task, Span) else (task, Content())
        try:
            with local_copy(item.path) as copy:
                if isinstance(task, Span):
                    return self._transcribe(copy, task)
                content = content_of(item.path, copy)
                first, *others = spans_of(item, content, copy)
                return (first, *others) if others else self._transcribe(copy, first)
        except Exception as e:
            known = isinstance(e, (*USER_ERRORS, OSError))
            error = str(e) if known else f"{type(e).__name__}: {e}"
            return SpanResult(task if isinstance(task, Span) else whole(item, content), error=error)

    def _transcribe(self, path: Path, span: Span) -> SpanResult:
        options = {**self._options, **span.item.options}
        if span.start == 0 and span.end is None:
            found, info = self._model.transcribe(str(path), **options)
            damage = info.audio.damage if info.audio else None
        else:
            samples, damage = _samples_between(path, span.start, span.end, options)
            found, info = self._model.transcribe(samples, **options)
        segments = [segment_fields(_moved(segment, span.start)) for segment in found]
        report = found.report()
        return SpanResult(
            span,
            segments,
            info.language,
            info.language_probability,
            report.audio_seconds,
            report.total.wall_seconds,
            report.total.cpu_seconds,
            sorted({name for site in report.sites for name in site.used}),
            f"{platform.node()}:{os.getpid()}",
            damage,
        )


def _samples_between(
    path: Path, start: float, end: float | None, options: Mapping[str, Any]
) -> tuple[Samples, str | None]:
    """The samples from `start` to `end`, in seconds, and what is missing of a damaged file. Raises AudioError."""
    log = AudioLog()
    blocks = stream(path, log, strict_audio=options.get("strict_audio", False), audio_track=options.get("audio_track"))
    last = None if end is None else round(end * SAMPLE_RATE)
    return join(_within(blocks, round(start * SAMPLE_RATE), last)), log.facts().damage


def _within(blocks: Iterator[Samples], first: int, last: int | None) -> Iterator[Samples]:
    """The samples from the first to before the last. Reads nothing after them."""
    position = 0
    for block in blocks:
        begin, end = position, position + len(block)
        if end > first:
            yield block[max(0, first - begin) : None if last is None else max(0, last - begin)]
        position = end
        if last is not None and position >= last:
            return


def _moved(segment: Segment, seconds: float) -> Segment:
    """The segment with its times in the recording."""
    if not seconds:
        return segment
    words = segment.words and [
        replace(word, start=_later(word.start, seconds), end=_later(word.end, seconds)) for word in segment.words
    ]
    return replace(
        segment,
        seek=segment.seek + round(seconds * FRAMES_PER_SECOND),
        start=_later(segment.start, seconds),
        end=_later(segment.end, seconds),
        words=words,
    )


def _later(time: float, seconds: float) -> float:
    return round(time + seconds, 3)
