"""Transcriptions from the caller's side: one file's segments as they are decoded, or many files', and reports."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.scheduler import Job, together
from tilewhisper.engine.pipeline.segmenter import Stretch, course
from tilewhisper.engine.pipeline.session import FileRun
from tilewhisper.engine.progress import Progress, progress_bar
from tilewhisper.engine.report import RunReport
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.models.audio.vad import Timeline
from tilewhisper.models.constants import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from tilewhisper.engine.whisper_model import WhisperModel


class Transcription(Iterator[Segment]):
    """One file's segments, decoded as they are asked for, and the report of the run."""

    def __init__(
        self, model: "WhisperModel", audio: Any, options: TranscriptionOptions, progress: Progress | None = None
    ) -> None:
        self._model, self._options, self._progress = model, options, progress
        self._run = FileRun(model, audio, options)
        self.info = self._run.info
        self._segments = self._transcribe()

    def __next__(self) -> Segment:
        return next(self._segments)

    def report(self) -> RunReport:
        """What the run cost so far, and what ran where; complete once the segments are exhausted."""
        return self._run.report()

    def _transcribe(self) -> Iterator[Segment]:
        """In order from window to window, or with a batch size stretch by stretch, each on its own."""
        run, options, numbers, done = self._run, self._options, count(), 0
        with progress_bar(options.log_progress) as bar:
            for job in together(self._jobs(), options.batch_size or 1, self._model.batch(options)):
                if job.position > done:
                    done = job.position
                    self._tell(done, bar)
                for segment in job.fetch():
                    yield placed(segment, next(numbers), run.sound.timeline)

    def _jobs(self) -> Iterator[Job]:
        run, model = self._run, self._model
        if self._options.batch_size is None:
            yield _job(model, run, run.stretches, self._options)
            return
        for stretch in run.stretches:  # each is all the audio that its course knows of
            yield _job(model, run, [stretch], self._options, stretch.last, stretch.first / FRAMES_PER_SECOND)

    def _tell(self, position: int, bar: Progress | None) -> None:
        info, run = self.info, self._run
        total = info.duration if run.sound.timeline is None else info.duration_after_vad
        done = total if position >= run.stretches[-1].last else position / FRAMES_PER_SECOND
        for progress in (self._progress, bar):
            if progress:
                progress(done, total)


@dataclass(frozen=True)
class Transcript:
    """What came of one file of many."""

    audio: Any
    segments: list[Segment]
    info: TranscriptionInfo | None
    """None where `error` is not."""
    report: RunReport | None
    error: Exception | None = None
    """One of USER_ERRORS: why this file could not be read."""


def transcribe_together(
    model: "WhisperModel", files: Iterable[Any], options: TranscriptionOptions, batch_size: int
) -> Iterator[Transcript]:
    """Each file in order from window to window, `batch_size` files at once; results in the files' order."""
    failed: deque[tuple[int, Transcript]] = deque()
    begun: dict[Job, tuple[int, Any]] = {}

    def jobs() -> Iterator[Job]:
        for number, audio in enumerate(files):
            try:
                run = FileRun(model, audio, options)
            except USER_ERRORS as error:
                failed.append((number, Transcript(audio, [], None, None, error)))
                continue
            job = _job(model, run, run.stretches, options)
            begun[job] = number, audio
            yield job

    segments: list[Segment] = []
    for job in together(jobs(), batch_size, model.batch(options)):
        timeline = job.run.sound.timeline
        segments += [placed(segment, number, timeline) for number, segment in enumerate(job.fetch(), len(segments))]
        if job.done:
            number, audio = begun.pop(job)
            while failed and failed[0][0] < number:
                yield failed.popleft()[1]
            yield Transcript(audio, segments, job.run.info, job.run.report())
            segments = []
    yield from (transcript for _, transcript in failed)


def placed(segment: Segment, number: int, timeline: Timeline | None) -> Segment:
    """The segment with its number, and with its times in the file where speech was cut out of it."""
    if timeline is None:
        return replace(segment, id=number)
    words = None
    if segment.words is not None:
        moved = [timeline.restore_word(word.start, word.end) for word in segment.words]
        words = [replace(word, start=start, end=end) for word, (start, end) in zip(segment.words, moved, strict=True)]
    start = words[0].start if words else timeline.restore(segment.start)
    end = words[-1].end if words else timeline.restore(segment.end, is_end=True)
    return replace(segment, id=number, start=start, end=end, words=words)


def _job(
    model: "WhisperModel",
    run: FileRun,
    stretches: Sequence[Stretch],
    options: TranscriptionOptions,
    content: int | None = None,
    last_speech: float = 0.0,
) -> Job:
    frames = run.frames if content is None else content
    way = course(stretches, frames, options, model.checkpoint.tokenizer, model.text_context, last_speech)
    return Job(run, way, stretches[-1].last if stretches else 0)
