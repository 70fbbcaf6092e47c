"""A worker's model: transcribes spans, from several threads at once, and turns every fault of a file into a result."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilewhisper.engine.bulk.files import content_of, local_copy
from tilewhisper.engine.bulk.spans import spans_of
from tilewhisper.engine.bulk.work import Answer, Content, Span, SpanResult, Task, WorkerSettings, whole
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.writers import segment_fields
from tilewhisper.engine.pipeline.scheduler import default_batch_size
from tilewhisper.engine.pipeline.transcription import Transcription
from tilewhisper.engine.results import Segment
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.reader import stream
from tilewhisper.models.audio.recording import Samples, join
from tilewhisper.models.constants import FRAMES_PER_SECOND, SAMPLE_RATE
from tilewhisper.models.errors import AudioError

LEAST_READERS = 2
READ_AHEAD = 2
"""Recordings beyond a batch for each thread that reads: one that it reads, and one that is read."""


@dataclass(frozen=True)
class _Recorded:
    """A span whose audio is read, and whose text is still to be decoded."""

    span: Span
    transcription: Transcription
    damage: str | None = None
    """What is missing of a damaged file, where the transcription knows only the samples between two times."""

    def answer(self) -> SpanResult:
        """Wait for the text."""
        try:
            segments = [segment_fields(_moved(segment, self.span.start)) for segment in self.transcription]
        except Exception as e:
            return _failed(self.span, e)
        report = self.transcription.report()
        return SpanResult(
            self.span,
            segments,
            report.language,
            self.transcription.info.language_probability,
            report.audio_seconds,
            report.total.wall_seconds,
            report.total.cpu_seconds,
            sorted({name for site in report.sites for name in site.used}),
            f"{platform.node()}:{os.getpid()}",
            self.damage or report.audio.damage,
        )


class Transcriber:
    """A warm model. Its spans share decode steps.

    A few threads read, and one for each span waits for its text: a thread that reads has an OpenMP pool and malloc's
    memory of its own, so that with base and one for each of 34 spans a worker took 150 MB more.
    """

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
        batch_size = settings.batch_size or default_batch_size(self._model.runtime.window_bytes(checked))
        readers = max(LEAST_READERS, settings.threads)  # more threads decode faster, and need more that read
        self.capacity = batch_size + READ_AHEAD * readers
        """How many tasks keep it busy."""
        self._reading, self._waiting = ThreadPoolExecutor(readers), ThreadPoolExecutor(self.capacity)
        self._model.start_loop()

    def submit(self, task: Task, on_answer: Callable[[Answer], None]) -> None:
        """Give the answer from another thread: the spans of a long item, else its transcript.

        A fault of the file is an answer.
        """

        def read() -> None:
            found = self._read(task)
            if isinstance(found, _Recorded):
                self._waiting.submit(lambda: on_answer(found.answer()))
            else:
                on_answer(found)

        self._reading.submit(read)

    def _read(self, task: Task) -> Answer | _Recorded:
        """The spans of a long item, else its audio."""
        item, content = (task.item, task.content) if isinstance(task, Span) else (task, Content())
        try:
            with local_copy(item.path) as copy:
                if isinstance(task, Span):
                    return self._recorded(copy, task)
                content = content_of(item.path, copy)
                first, *others = spans_of(item, content, copy)
                return (first, *others) if others else self._recorded(copy, first)
        except Exception as e:
            return _failed(task if isinstance(task, Span) else whole(item, content), e)

    def _recorded(self, path: Path, span: Span) -> _Recorded:
        options = {**self._options, **span.item.options}
        if span.start == 0 and span.end is None:
            return _Recorded(span, self._model.begin(str(path), **options))
        samples, damage = _samples_between(path, span.start, span.end, options)
        return _Recorded(span, self._model.begin(samples, **options), damage)


def _failed(span: Span, error: Exception) -> SpanResult:
    if isinstance(error, OSError) and error.strerror:
        return SpanResult(span, error=f"{span.item.path}: {error.strerror}")
    known = isinstance(error, (*USER_ERRORS, OSError))
    return SpanResult(span, error=str(error) if known else f"{type(error).__name__}: {error}")


def _samples_between(
    path: Path, start: float, end: float | None, options: Mapping[str, Any]
) -> tuple[Samples, str | None]:
    """The samples from `start` to `end`, in seconds, and what is missing of a damaged file. Raises AudioError."""
    log = AudioLog()
    blocks = stream(path, log, strict_audio=options.get("strict_audio", False), audio_track=options.get("audio_track"))
    last = None if end is None else round(end * SAMPLE_RATE)
    samples = join(_within(blocks, round(start * SAMPLE_RATE), last))
    if not len(samples):
        raise AudioError(f"{path}: ends before {start:g} s, where the part begins")
    return samples, log.facts().damage


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
