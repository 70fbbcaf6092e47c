"""The way of one file: audio -> log-mel -> windows -> encode -> decode -> segments, and the report of it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewhisper.engine.audio_context import FULL, AudioContext, Encoded
from tilewhisper.engine.decoder import Heard
from tilewhisper.engine.decoding import DecodedWindow, compression_ratio
from tilewhisper.engine.fallback import came_out_badly, is_silence
from tilewhisper.engine.longform import Span, split_window
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import Clock, RunReport, decoder_report, machine, peak_memory_bytes, site_report
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.router import Counts, SiteCount
from tilewhisper.models import audio as audio_files
from tilewhisper.models.audio import MIN_SECONDS, SAMPLE_RATE
from tilewhisper.models.log_mel import FRAMES_PER_WINDOW, HOP_LENGTH, LogMel
from tilewhisper.models.recording import Samples

if TYPE_CHECKING:
    from tilewhisper.engine.model import WhisperModel

SECONDS_PER_FRAME = HOP_LENGTH / SAMPLE_RATE
MIN_FRAMES = round(MIN_SECONDS / SECONDS_PER_FRAME)
"""What is left of a file after its last timestamp is not worth a window below this."""


class _Window:
    """One encoded window; the decoder's keys and values of it are computed once, when it is first decoded."""

    def __init__(self, model: "WhisperModel", encoded: Encoded) -> None:
        self.cheap = encoded.cheap
        self._model, self._encoded = model, encoded

    @cached_property
    def heard(self) -> Heard:
        return self._model.hear(self._encoded)


class Transcription(Iterator[Segment]):
    """One file's segments, decoded as they are asked for, and the report of the run."""

    def __init__(
        self,
        model: "WhisperModel",
        audio: Any,
        options: TranscriptionOptions,
        progress: Callable[[float, float], None] | None = None,
    ) -> None:
        self._model = model
        self._clock = Clock()
        self._counts: Counts = defaultdict(SiteCount)
        self._progress = progress
        self._windows = self._tokens = 0
        self._context = model.audio_context(options)
        self._again_in_full = 0
        self._first: _Window | None = None
        self._file = str(audio) if isinstance(audio, str | Path) else f"<{type(audio).__name__}>"
        with self._clock("total"):
            self._mel = self._listen(audio)
            self._frames = self._mel.content_frames
            self._seconds = self._mel.samples / SAMPLE_RATE
            self.info = self._describe(options)
        self._segments = self._decode_windows(self.info.transcription_options)

    def __next__(self) -> Segment:
        with self._clock("total"):
            return next(self._segments)

    def report(self) -> RunReport:
        """What the run cost so far, and what ran where; complete once the segments are exhausted."""
        model, total, decode = self._model, self._clock.stage("total"), self._clock.stage("decode")
        return RunReport(
            file=self._file,
            model=model.checkpoint.name,
            weights=model.checkpoint.source.origin,
            policy=model.policy.name,
            backends=list(model.backend_labels),
            backend_overrides=list(model.overrides),
            language=self.info.language,
            options=self.info.transcription_options,
            audio_seconds=self._seconds,
            rtf=total.wall_seconds / self._seconds,
            speed=self._seconds / total.wall_seconds,
            load=model.load_stage,
            stages=[self._clock.stage(name) for name in ("decode audio", "log-mel", "encode", "decode")],
            total=total,
            audio_context=str(self._context),
            windows=self._windows,
            windows_again_in_full=self._again_in_full,
            tokens=self._tokens,
            tokens_per_second=self._tokens / decode.wall_seconds if self._tokens else None,
            peak_memory_bytes=peak_memory_bytes(),
            sites=[site_report(plan, self._counts[plan.route.site.name]) for plan in model.site_plans],
            decoder=decoder_report(model.decoder_plan),
            machine=machine(),
        )

    def _listen(self, audio: Any) -> LogMel:
        """The file's log-mel spectrogram, block by block: memory does not grow with the file."""
        mel, blocks = LogMel(self._model.n_mels), audio_files.stream(audio)
        while (block := self._next_block(blocks)) is not None:
            with self._clock("log-mel"):
                mel.append(block)
        with self._clock("log-mel"):
            mel.finish()
        return mel

    def _next_block(self, blocks: Iterator[Samples]) -> Samples | None:
        with self._clock("decode audio"):
            return next_block(blocks)

    def _describe(self, options: TranscriptionOptions) -> TranscriptionInfo:
        """Settle the language, by the first window where none was given."""
        tokenizer = self._model.checkpoint.tokenizer
        found = None
        if not tokenizer.is_multilingual:
            language, probability = "en", 1.0
        elif options.language is not None:
            language, probability = tokenizer.language_code(options.language), 1.0
        else:
            self._first = self._encode(0, self._context)
            with self._clock("decode"):
                found = self._model.detect_language(self._first.heard)
            language, probability = next(iter(found.items()))
        return TranscriptionInfo(
            language=language,
            language_probability=probability,
            duration=self._seconds,
            duration_after_vad=self._seconds,
            all_language_probs=None if found is None else list(found.items()),
            transcription_options=replace(options, language=language),
        )

    def _decode_windows(self, options: TranscriptionOptions) -> Iterator[Segment]:
        """Window after window: each starts where the last timestamp of the one before says."""
        tokenizer = self._model.checkpoint.tokenizer
        seek = number = 0
        while self._frames - seek >= MIN_FRAMES:
            frames = min(FRAMES_PER_WINDOW, self._frames - seek)
            advance = frames
            decoded = self._decode_window(seek, options)
            if not is_silence(decoded, options):
                cut = split_window(decoded.tokens, tokenizer.timestamp_begin, frames)
                advance = cut.advance
                for span in cut.spans:
                    if segment := self._segment(number, seek, span, decoded):
                        number += 1
                        yield segment
            seek += advance
            if self._progress:
                self._progress(min(seek * SECONDS_PER_FRAME, self._seconds), self._seconds)

    def _decode_window(self, seek: int, options: TranscriptionOptions) -> DecodedWindow:
        """The window at frame `seek`; once more with its whole silence where the cheap one came out badly."""
        encoded, self._first = self._first or self._encode(seek, self._context), None
        if not encoded.cheap:
            return self._decode(encoded, options)
        decoded = self._decode(encoded, options, options.temperatures[:1])
        if came_out_badly(decoded, options):
            self._again_in_full += 1
            decoded = self._decode(self._encode(seek, FULL), options)
        return decoded

    def _encode(self, seek: int, context: AudioContext) -> _Window:
        """The window at frame `seek`, ready to be decoded."""
        self._windows += 1
        content = max(0, min(FRAMES_PER_WINDOW, self._frames - seek))
        with self._clock("encode"):
            encoded = self._model.encode_window(self._mel.window(seek)[None], content, context, self._counts)
        return _Window(self._model, encoded)

    def _decode(
        self, encoded: _Window, options: TranscriptionOptions, temperatures: Sequence[float] | None = None
    ) -> DecodedWindow:
        with self._clock("decode"):
            (decoded,) = self._model.decode([encoded.heard], options, temperatures=temperatures)
        self._tokens += len(decoded.tokens)
        return decoded

    def _segment(self, number: int, seek: int, span: Span, decoded: DecodedWindow) -> Segment | None:
        """The segment of a span, its times cut to the file's; None where it has no text or no length."""
        text = self._model.checkpoint.tokenizer.decode(span.tokens)
        start, end = (min((seek + frame) * SECONDS_PER_FRAME, self._seconds) for frame in (span.start, span.end))
        if not text.strip() or start >= end:
            return None
        return Segment(
            id=number,
            seek=seek,
            start=start,
            end=end,
            text=text,
            tokens=list(span.tokens),
            avg_logprob=decoded.avg_logprob,
            compression_ratio=compression_ratio(text),
            no_speech_prob=decoded.no_speech_prob,
            words=None,
            temperature=decoded.temperature,
        )


def next_block(blocks: Iterator[Samples]) -> Samples | None:
    """The next samples of a stream, None at its end."""
    return next(blocks, None)
