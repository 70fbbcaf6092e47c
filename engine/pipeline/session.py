"""One file's state: its audio, its language, its encoded windows, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

from tilewhisper.engine.decoding.batch import Attempt
from tilewhisper.engine.decoding.decoder import CrossKV
from tilewhisper.engine.decoding.language import DetectedLanguage
from tilewhisper.engine.encoding.audio_context import FULL, AudioContext
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.energy import Energy, EnergyMeter
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.file_language import choose_language, windows_of
from tilewhisper.engine.pipeline.frontend import AudioFeatures, AudioSource, read_audio, read_speech
from tilewhisper.engine.pipeline.prompt import Prompt
from tilewhisper.engine.pipeline.quality import MIN_EVIDENCE, may_be_silence
from tilewhisper.engine.pipeline.segmenter import Clip, WindowRequest, clips_between, clips_of
from tilewhisper.engine.progress import OnRead
from tilewhisper.engine.report import (
    OPTIONAL_STAGES,
    Clock,
    RunReport,
    Seconds,
    StageName,
    decoder_report,
    machine,
    peak_memory_bytes,
    site_report,
)
from tilewhisper.engine.results import TranscriptionInfo
from tilewhisper.engine.routing.router import Counts
from tilewhisper.engine.runtime import ModelDescription, Runtime
from tilewhisper.engine.timestamps.alignment import TokenTimes
from tilewhisper.models.audio import vad
from tilewhisper.models.constants import HOP_LENGTH, SAMPLE_RATE
from tilewhisper.models.memory import release_freed

EVERYTHING = ((0.0, inf),)
"""The clips of options that choose none."""


@dataclass(frozen=True)
class Window:
    """One encoded window, ready to be decoded."""

    cross_kv: CrossKV
    frames: int
    """Frames with audio."""
    approximate: bool
    """Whether the silent tail was approximated."""
    encoded: Encoded | None
    """None where no text will be aligned: 3 MB with base."""


class Session:
    """One file under one runtime and one set of options.

    The constructor reads the audio in the caller's thread; everything else uses the model, so it runs in the
    scheduler's loop.
    """

    def __init__(
        self,
        runtime: Runtime,
        model: ModelDescription,
        audio: Any,
        options: TranscriptionOptions,
        on_read: OnRead | None = None,
    ) -> None:
        """Read the audio. Raises ModelsError, EngineError and what `on_read` raises."""
        self._runtime, self._model, self.options = runtime, model, options
        self._file = str(audio) if isinstance(audio, str | Path) else f"<{type(audio).__name__}>"
        self._context = runtime.audio_context(options)
        self._counts = Counts()
        self._windows = self._reencoded = self._tokens = 0
        self._batch_size = 1
        self._first: tuple[Clip, Window] | None = None
        self._energy = EnergyMeter()
        self.clock = Clock()
        with self.clock("total"):
            self.features = self._read(audio, on_read)
            self.clips = self._clips()

    @property
    def frames(self) -> int:
        """Frames of the audio that is transcribed."""
        return self.features.mel.content_frames

    @property
    def cuts(self) -> Sequence[float]:
        """Where pauses are missing from the audio that is transcribed, in seconds; see `Segmenter`."""
        timeline = self.features.timeline
        return timeline.pauses if timeline else ()

    @cached_property
    def info(self) -> TranscriptionInfo:
        """The file's facts; its language is detected where none was given. Uses the model."""
        with self.clock("total"):
            return self._describe()

    def encode(self, request: WindowRequest) -> Window:
        """Encode a window, or take the one that language detection encoded."""
        first, self._first = self._first, None
        return first[1] if first and first[0] == request.clip else self._encode(request.clip, self._context)

    def reencode(self, request: WindowRequest) -> Window:
        """Encode a window with full context, because its text failed the checks with an approximate tail."""
        self._reencoded += 1
        return self._encode(request.clip, FULL)

    def attempt(self, window: Window, prompt: Prompt, temperature: float) -> Attempt:
        return self._runtime.attempt(window.cross_kv, prompt.before, temperature, self.options, prompt.prefix)

    def language_of(self, window: Window) -> str:
        """The file's language, or with the option `multilingual` that of the window's own speech."""
        if not (self.options.multilingual and self._runtime.tokenizer.is_multilingual):
            return self.info.language
        detected = self._detect_language(window)
        return self.info.language if may_be_silence(detected.no_speech_prob, self.options) else detected.code

    def supports(self, window: Window, prompt: Prompt, tokens: Sequence[int]) -> bool:
        """Whether the window's audio, and not only the model's habit, makes its text probable."""
        with self.clock(StageName.EVIDENCE):
            return self._runtime.evidence(window.cross_kv, prompt.before, tokens) >= MIN_EVIDENCE

    def align(self, window: Window, language: str, text: Sequence[int]) -> tuple[TokenTimes, Sequence[float]]:
        """Times and probabilities of a window's text tokens; see `Runtime.align`."""
        assert window.encoded is not None, "the options do not need an alignment"
        with self.clock(StageName.WORD_TIMES):
            task = self.options.task
            return self._runtime.align(window.encoded, window.cross_kv, window.frames, language, task, text)

    def task_prompt(self, language: str) -> tuple[int, ...]:
        """The part of every window's prompt that does not depend on the text before it."""
        return self._runtime.tokenizer.prompt(language, self.options.task, not self.options.without_timestamps)

    def add_decoding(self, tokens: int, batch_size: int, spent: Mapping[str, Seconds]) -> None:
        """Count a finished attempt: its tokens, the windows decoded beside it, and its share of each stage's time."""
        self._tokens += tokens
        self._batch_size = max(self._batch_size, batch_size)
        for stage, seconds in spent.items():
            for name in (stage, "total"):
                self.clock.add(name, *seconds)

    def report(self) -> RunReport:
        """What the run cost so far, and what ran where."""
        model, runtime, info = self._model, self._runtime, self.info
        total, decode = self.clock.stage("total"), self.clock.stage(StageName.DECODE)
        stages = [self.clock.stage(name) for name in StageName]
        return RunReport(
            file=self._file,
            model=model.name,
            model_reason=model.reason,
            weights=model.weights,
            policy=model.policy,
            backends=list(runtime.backend_labels),
            backend_overrides=list(model.backend_overrides),
            language=info.language,
            language_probability=None if self._detected is None else self._detected.probability,
            language_no_speech_prob=None if self._detected is None else self._detected.no_speech_prob,
            options=info.transcription_options,
            audio=self.features.facts,
            audio_seconds=info.duration,
            rtf=total.wall_seconds / info.duration if info.duration else None,
            speed=info.duration / total.wall_seconds if info.duration else None,
            cpu_seconds_per_audio_second=total.cpu_seconds / info.duration if info.duration else None,
            energy=Energy.of(self._energy, info.duration),
            startup=model.startup,
            load=model.load,
            stages=[stage for stage in stages if stage.calls or stage.name not in OPTIONAL_STAGES],
            total=total,
            audio_context=str(self._context),
            batch_size=self._batch_size,
            windows=self._windows,
            windows_reencoded=self._reencoded,
            tokens=self._tokens,
            tokens_per_second=self._tokens / decode.wall_seconds if self._tokens else None,
            peak_memory_bytes=peak_memory_bytes(),
            device_read_backs=self._counts.read_backs,
            sites=[site_report(plan, self._counts[plan.route.site.name]) for plan in runtime.site_plans],
            decoder=decoder_report(runtime.decoder_plan),
            machine=machine(),
        )

    def _read(self, audio: Any, on_read: OnRead | None) -> AudioFeatures:
        """The audio, with its speech where VAD is requested; explicit clips take precedence."""
        options = self.options
        source = AudioSource(audio, strict=options.strict_audio, track=options.audio_track, on_read=on_read)
        vad_options = options.vad_options
        if vad_options is None or options.clips != EVERYTHING:
            return read_audio(source, self._runtime.n_mels, self.clock)
        cut_out = options.batch_size is None
        return read_speech(source, self._runtime.n_mels, self.clock, vad_options, cut_out=cut_out)

    def _clips(self) -> list[Clip]:
        """The clips to transcribe: those of the options, or the chunks of a file that is cut at silences.

        Silence that stands in for missing audio is left out.
        """
        features = self.features
        if features.speech is None and self.options.clips == EVERYTHING:
            return clips_between(features.facts.silences, self.frames)
        if features.speech is None or features.timeline is not None:
            return clips_of(self.options, self.frames)
        chunks = vad.chunks(features.speech, self.options.longest_chunk * SAMPLE_RATE)
        return [Clip(chunk.start // HOP_LENGTH, min(chunk.end // HOP_LENGTH, self.frames)) for chunk in chunks]

    @cached_property
    def _detected(self) -> DetectedLanguage | None:
        """The detected language; None where it is given, or the model knows only one."""
        if not self._runtime.tokenizer.is_multilingual or self.options.language is not None:
            return None
        return choose_language(self._window_languages(), self.options)

    def _describe(self) -> TranscriptionInfo:
        tokenizer, options, features = self._runtime.tokenizer, self.options, self.features
        detected, language = self._detected, "en"
        if detected is not None:
            language = detected.code
        elif tokenizer.is_multilingual and options.language is not None:
            language = tokenizer.language_code(options.language)
        speech = features.speech
        spoken = features.seconds if speech is None else sum(span.end - span.start for span in speech) / SAMPLE_RATE
        return TranscriptionInfo(
            language=language,
            language_probability=1.0 if detected is None else detected.probability,
            duration=features.seconds,
            duration_after_vad=spoken,
            all_language_probs=None if detected is None else list(detected.probabilities.items()),
            transcription_options=replace(options, language=language),
            vad_options=None if speech is None else options.vad_options,
            audio=features.facts,
        )

    def _window_languages(self) -> Iterator[DetectedLanguage]:
        """Each window's language; keeps the first encoded window for `encode`."""
        for clip in windows_of(self.clips, self.frames):
            window = self._encode(clip, self._context)
            self._first = self._first or (clip, window)
            yield self._detect_language(window)

    def _detect_language(self, window: Window) -> DetectedLanguage:
        with self.clock(StageName.DETECT_LANGUAGE):
            return self._runtime.detect_language(window.cross_kv)

    def _encode(self, clip: Clip, context: AudioContext) -> Window:
        self._windows += 1
        frames = clip.last - clip.first
        mel = self.features.mel.window(clip.first, frames)
        with self.clock(StageName.ENCODE):
            encoded = self._runtime.encode_window(mel[None], frames, context, self._counts)
        with self.clock(StageName.CROSS_KV):
            cross_kv = self._runtime.project_cross_kv(encoded)
            if self._windows > 1:  # 30 clips of one window each took 4 % longer (base)
                release_freed()
        return Window(cross_kv, frames, encoded.approximate, encoded if self._aligns else None)

    @cached_property
    def _aligns(self) -> bool:
        """Whether texts may be aligned to the audio: for words, and where a pause that was cut out splits a segment."""
        return self.options.word_timestamps or bool(self.cuts)
