"""One file on its way: heard, its language found, its windows encoded, and what all of that came to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewhisper.engine.decoding.decoder import CrossKV
from tilewhisper.engine.encoding.audio_context import FULL, AudioContext
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.frontend import Sound, listen, listen_to_speech
from tilewhisper.engine.pipeline.segmenter import Stretch, WindowRequest, clips
from tilewhisper.engine.report import (
    DECODER_STAGES,
    Clock,
    RunReport,
    Spent,
    decoder_report,
    machine,
    peak_memory_bytes,
    site_report,
)
from tilewhisper.engine.results import TranscriptionInfo
from tilewhisper.engine.routing.router import Counts, SiteCount
from tilewhisper.models.audio import vad
from tilewhisper.models.constants import FRAMES_PER_WINDOW, HOP_LENGTH, SAMPLE_RATE

if TYPE_CHECKING:
    from tilewhisper.engine.whisper_model import WhisperModel

STAGES = ("decode audio", "vad", "log-mel", "encode", *DECODER_STAGES, "word times")
OPTIONAL_STAGES = ("vad", "detect language", "word times")
"""Not told of where nobody asked for them."""


@dataclass(frozen=True)
class Window:
    """One encoded window, ready to be decoded."""

    encoded: Encoded
    heard: CrossKV
    frames: int
    """Those with audio."""


class FileRun:
    """One file under one model and one set of options. Raises ModelsError and EngineError."""

    def __init__(self, model: "WhisperModel", audio: Any, options: TranscriptionOptions) -> None:
        self._model, self.options = model, options
        self._file = str(audio) if isinstance(audio, str | Path) else f"<{type(audio).__name__}>"
        self._context = model.audio_context(options)
        self._counts: Counts = defaultdict(SiteCount)
        self._windows = self._again_in_full = self._tokens = 0
        self._batch_size = 1
        self._first: tuple[Stretch, Window] | None = None
        self.clock = Clock()
        with self.clock("total"):
            self.sound = self._listen(audio)
            self.stretches = self._stretches()
            self.info = self._describe()

    @property
    def frames(self) -> int:
        """Of the audio that is transcribed."""
        return self.sound.mel.content_frames

    def encode(self, request: WindowRequest) -> Window:
        """A window as the options say; the one that the language was heard in is there already."""
        asked, first = Stretch(request.seek, request.seek + request.frames), self._first
        self._first = None
        return first[1] if first and first[0] == asked else self._encode(asked, self._context)

    def encode_again(self, request: WindowRequest) -> Window:
        """A window with its whole silence, because it came out badly with the cheap one."""
        self._again_in_full += 1
        return self._encode(Stretch(request.seek, request.seek + request.frames), FULL)

    def language_of(self, window: Window) -> str:
        """The file's, or the window's own where every window may be in another."""
        if not (self.options.multilingual and self._model.is_multilingual):
            return self.info.language
        with self.clock("detect language"):
            return next(iter(self._model.detect_language(window.heard)))

    def align(self, window: Window, language: str, text: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
        """When the window's text tokens were said and how probable each is; see `course.Align`."""
        with self.clock("word times"):
            return self._model.align(window.encoded, window.heard, window.frames, language, self.options.task, text)

    def task_prompt(self, language: str) -> tuple[int, ...]:
        """What every window's decoding starts with, apart from its text before."""
        tokenizer = self._model.checkpoint.tokenizer
        return tokenizer.prompt(language, self.options.task, not self.options.without_timestamps)

    def count(self, tokens: int, batch_size: int, spent: Mapping[str, Spent]) -> None:
        """So many tokens came of a window that was decoded among so many, and took these parts of the stages' times."""
        self._tokens += tokens
        self._batch_size = max(self._batch_size, batch_size)
        for stage, seconds in spent.items():
            for name in (stage, "total"):
                self.clock.add(name, *seconds)

    def report(self) -> RunReport:
        """What the run cost so far, and what ran where."""
        model, total, decode = self._model, self.clock.stage("total"), self.clock.stage("decode")
        stages = [self.clock.stage(name) for name in STAGES]
        return RunReport(
            file=self._file,
            model=model.checkpoint.name,
            weights=model.checkpoint.source.origin,
            policy=model.policy.name,
            backends=list(model.backend_labels),
            backend_overrides=list(model.overrides),
            language=self.info.language,
            options=self.info.transcription_options,
            audio_seconds=self.sound.seconds,
            rtf=total.wall_seconds / self.sound.seconds,
            speed=self.sound.seconds / total.wall_seconds,
            startup=model.startup,
            load=model.load_stage,
            stages=[stage for stage in stages if stage.calls or stage.name not in OPTIONAL_STAGES],
            total=total,
            audio_context=str(self._context),
            batch_size=self._batch_size,
            windows=self._windows,
            windows_again_in_full=self._again_in_full,
            tokens=self._tokens,
            tokens_per_second=self._tokens / decode.wall_seconds if self._tokens else None,
            peak_memory_bytes=peak_memory_bytes(),
            sites=[site_report(plan, self._counts[plan.route.site.name]) for plan in model.site_plans],
            decoder=decoder_report(model.decoder_plan),
            machine=machine(),
        )

    def _listen(self, audio: Any) -> Sound:
        """With its speech where that is asked for; clips that are given go before."""
        options = self.options.vad_options
        if options is None or self.options.clips != ((0.0, inf),):
            return listen(audio, self._model.n_mels, self.clock)
        batched = self.options.batch_size is not None
        return listen_to_speech(audio, self._model.n_mels, self.clock, options, cut_out=not batched)

    def _stretches(self) -> list[Stretch]:
        """What is transcribed: the clips, or where the file is cut at silences its chunks."""
        sound = self.sound
        if sound.speech is None or sound.timeline is not None:
            return clips(self.options, self.frames)
        chunks = vad.chunks(sound.speech, self.options.longest_chunk * SAMPLE_RATE)
        return [Stretch(chunk.start // HOP_LENGTH, min(chunk.end // HOP_LENGTH, self.frames)) for chunk in chunks]

    def _describe(self) -> TranscriptionInfo:
        """Settle the language, by the first windows where none was given."""
        tokenizer, options, sound = self._model.checkpoint.tokenizer, self.options, self.sound
        found = None
        if not tokenizer.is_multilingual:
            language, probability = "en", 1.0
        elif options.language is not None:
            language, probability = tokenizer.language_code(options.language), 1.0
        else:
            found = self._detect_language()
            language, probability = next(iter(found.items()))
        speech = sound.speech
        return TranscriptionInfo(
            language=language,
            language_probability=probability,
            duration=sound.seconds,
            duration_after_vad=sound.seconds if speech is None else sum(s.end - s.start for s in speech) / SAMPLE_RATE,
            all_language_probs=None if found is None else list(found.items()),
            transcription_options=replace(options, language=language),
            vad_options=None if speech is None else options.vad_options,
        )

    def _detect_language(self) -> dict[str, float]:
        """Of the first window that is sure enough, else of the surest of those for the language most of them name."""
        options, heard = self.options, list[dict[str, float]]()
        first = self.stretches[0].first if self.stretches else 0
        for number in range(options.language_detection_segments):
            seek = first + number * FRAMES_PER_WINDOW
            if number and seek >= self.frames:
                break
            asked = Stretch(seek, min(seek + FRAMES_PER_WINDOW, max(seek, self.frames)))
            window = self._encode(asked, self._context)
            self._first = self._first or (asked, window)
            with self.clock("detect language"):
                found = self._model.detect_language(window.heard)
            heard.append(found)
            threshold = options.language_detection_threshold
            if threshold is None or next(iter(found.values())) >= threshold:
                return found
        names = [next(iter(found)) for found in heard]
        language = max(names, key=names.count)
        return max((found for found in heard if next(iter(found)) == language), key=lambda found: found[language])

    def _encode(self, asked: Stretch, context: AudioContext) -> Window:
        self._windows += 1
        frames = asked.last - asked.first
        mel = self.sound.mel.window(asked.first, frames)
        with self.clock("encode"):
            encoded = self._model.encode_window(mel[None], frames, context, self._counts)
        with self.clock("keys and values"):
            return Window(encoded, self._model.project_cross_kv(encoded), frames)
