"""Transcriptions as callers see them: one file's segments as they are decoded, or many files at once, and reports."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from tilewhisper.engine.errors import USER_ERRORS, ModelClosed
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.frontend import AudioFeatures
from tilewhisper.engine.pipeline.job import Job
from tilewhisper.engine.pipeline.scheduler import Scheduler, run_in_order
from tilewhisper.engine.pipeline.segmenter import Clip, Segmenter
from tilewhisper.engine.pipeline.session import Session
from tilewhisper.engine.progress import OnRead, Progress, progress_bar
from tilewhisper.engine.report import RunReport
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.runtime import ModelDescription, Runtime
from tilewhisper.models.audio.vad import within_speech
from tilewhisper.models.constants import FRAMES_PER_SECOND


class Transcription(Iterator[Segment]):
    """One file's segments, decoded as they are asked for, and the report of the run."""

    def __init__(self, scheduler: Scheduler, session: Session, jobs: Iterator[Job], progress: Progress | None) -> None:
        self._scheduler, self._session, self._jobs, self._progress = scheduler, session, jobs, progress
        self._info: TranscriptionInfo | None = None
        self._running: list[Job] = []
        self._token_logprobs: list[Sequence[tuple[int, float]]] = []
        self._cancelled = False
        self._segments = self._transcribe()

    def __next__(self) -> Segment:
        return next(self._segments)

    @property
    def info(self) -> TranscriptionInfo:
        """The file's facts. Detects the language if it must, for which it waits for the model. Raises EngineError."""
        if self._info is None:  # not cached_property: Python 3.11 locks it for all objects, and a fork copies the lock
            described = self._scheduler.call(lambda: self._session.info)
            self._info = replace(described)  # the caller may change it, and the session goes on
        return self._info

    def cancel(self) -> None:
        """End the transcription, from any thread; its places are free before the next decode step.

        Iteration ends after the segments that are decoded already.
        """
        self._cancelled = True
        for job in [*self._running]:
            self._scheduler.cancel(job)

    def token_logprobs(self) -> list[tuple[int, float]]:
        """The tokens of the text so far, as decoded and in order, each with its natural log-probability.

        Timestamps are among them, and the tokens of a prefix are not.
        """
        return [token for tokens in self._token_logprobs for token in tokens]

    def report(self) -> RunReport:
        """What the run cost so far, and what ran where; complete once the segments are exhausted."""
        return self._session.report()

    def _transcribe(self) -> Iterator[Segment]:
        """In order from window to window, or with a batch size chunk by chunk, each decoded on its own."""
        session, numbers, done = self._session, count(), 0
        with progress_bar(session.options.log_progress) as bar:
            for job in run_in_order(self._scheduler, self._started(), session.options.batch_size or 1):
                self._collect(job.token_logprobs)
                if job.position > done:
                    done = job.position
                    self._show_progress(done, bar)
                for segment in job.take_segments():
                    yield placed(segment, next(numbers), session.features)
                if job.error:
                    raise job.error

    def _collect(self, tokens: Sequence[tuple[int, float]]) -> None:
        """Remember a job's tokens, which grow as long as it runs."""
        if not self._token_logprobs or self._token_logprobs[-1] is not tokens:
            self._token_logprobs.append(tokens)

    def _started(self) -> Iterator[Job]:
        for job in self._jobs:
            if self._cancelled:
                return
            self._running = [running for running in self._running if not running.done] + [job]
            yield job

    def _show_progress(self, position: int, bar: Progress | None) -> None:
        info, session = self._session.info, self._session
        total = info.duration if session.features.timeline is None else info.duration_after_vad
        end = max(clip.last for clip in session.clips)
        done = total if position >= end else position / FRAMES_PER_SECOND
        for progress in (self._progress, bar):
            if progress:
                progress(done, total)


@dataclass(frozen=True)
class Transcript:
    """The transcription of one file of many."""

    audio: Any
    segments: list[Segment]
    info: TranscriptionInfo | None
    """None where the file could not be read."""
    report: RunReport | None
    """None where the file could not be read."""
    error: Exception | None = None
    """One of USER_ERRORS: why this file failed."""


class Transcriber:
    """Transcribes files on one scheduler."""

    def __init__(self, runtime: Runtime, model: ModelDescription, scheduler: Scheduler) -> None:
        self._runtime, self._model, self._scheduler = runtime, model, scheduler

    def transcribe(
        self,
        audio: Any,
        options: TranscriptionOptions,
        progress: Progress | None = None,
        on_read: OnRead | None = None,
    ) -> Transcription:
        """One file, whose audio is read now; the rest is lazy. Raises ModelsError, EngineError and what `on_read`
        raises."""
        session = Session(self._runtime, self._model, audio, options, on_read)
        return Transcription(self._scheduler, session, self._jobs(session), progress)

    def transcribe_many(
        self, files: Iterable[Any], options: TranscriptionOptions, batch_size: int
    ) -> Iterator[Transcript]:
        """Each file in order from window to window, `batch_size` files at once; transcripts in the files' order."""
        unread: list[tuple[int, Transcript]] = []
        numbers: dict[Job, tuple[int, Any]] = {}

        def jobs() -> Iterator[Job]:
            for number, audio in enumerate(files):
                try:
                    session = self._described(audio, options)
                except ModelClosed:
                    raise
                except USER_ERRORS as error:
                    unread.append((number, Transcript(audio, [], None, None, error)))
                    continue
                job = self._job(session, session.clips, options, batch_size=batch_size)
                numbers[job] = number, audio
                yield job

        segments: list[Segment] = []
        for job in run_in_order(self._scheduler, jobs(), batch_size):
            session = job.session
            new = enumerate(job.take_segments(), len(segments))
            segments += [placed(segment, number, session.features) for number, segment in new]
            if not job.done:
                continue
            number, audio = numbers.pop(job)
            while unread and unread[0][0] < number:
                yield unread.pop(0)[1]
            if job.error and (isinstance(job.error, ModelClosed) or not isinstance(job.error, USER_ERRORS)):
                raise job.error
            yield Transcript(audio, segments, session.info, session.report(), job.error)
            segments = []
        yield from (transcript for _, transcript in unread)

    def _described(self, audio: Any, options: TranscriptionOptions) -> Session:
        """A file whose language is known."""
        session = Session(self._runtime, self._model, audio, options)
        self._scheduler.call(lambda: session.info)
        return session

    def _jobs(self, session: Session) -> Iterator[Job]:
        if session.options.batch_size is None:
            yield self._job(session, session.clips, session.options)
            return
        options = session.options
        for clip in session.clips:  # to its segmenter, each chunk is all the audio there is
            yield self._job(session, [clip], options, clip.last, clip.first / FRAMES_PER_SECOND, options.batch_size)
            options = replace(options, prefix=None)  # the file's text begins with the prefix, not every chunk's

    def _job(
        self,
        session: Session,
        clips: Sequence[Clip],
        options: TranscriptionOptions,
        content: int | None = None,
        last_speech: float = 0.0,
        batch_size: int | None = 1,
    ) -> Job:
        frames = session.frames if content is None else content
        runtime = self._runtime
        segmenter = Segmenter(
            clips, frames, options, runtime.tokenizer, runtime.text_context, last_speech, session.cuts
        )
        return Job(session, segmenter, batch_size or 1)


def placed(segment: Segment, number: int, features: AudioFeatures) -> Segment:
    """The segment with its number, and with its times in the file, without the silence that VAD found around it."""
    timeline, speech = features.timeline, features.speech
    start, end, words = segment.start, segment.end, segment.words
    if timeline and words:
        moved = [timeline.restore_word(word.start, word.end) for word in words]
        words = [replace(word, start=start, end=end) for word, (start, end) in zip(words, moved, strict=True)]
    elif timeline:
        start, end = timeline.restore(start), timeline.restore(end, is_end=True)
    elif speech and not words:
        start, end = within_speech(start, end, speech)
    if words:
        start, end = words[0].start, words[-1].end
    return replace(segment, id=number, start=start, end=end, words=words)
