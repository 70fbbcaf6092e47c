"""Compare policies with each other and with transformers' own `generate`: same audio, same options, one process.

Every contender first transcribes each file once, as a warm-up; its text of that pass is the one that is compared. Then
all contenders take turns, so that a machine that slows down slows all of them. Times include decoding the audio and the
log-mel spectrogram, but not loading the model.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tilewhisper.engine.report import Machine
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE

if TYPE_CHECKING:  # transformers is optional
    from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper


@dataclass(frozen=True)
class SpeechOptions:
    """Options of every contender."""

    language: str | None
    task: str
    audio_context: str = "auto"
    """For this engine; transformers always encodes the full context."""


@dataclass(frozen=True)
class Pass:
    """One contender's transcription of one file."""

    tokens: tuple[int, ...]
    text: str
    audio_seconds: float
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage, if the contender reports them."""


class Contender(Protocol):
    name: str

    def transcribe(self, file: str, options: SpeechOptions) -> Pass: ...


class PolicyContender:
    """This engine under one policy, decoding as transformers does: greedily, once, no previous text."""

    def __init__(self, model: WhisperModel) -> None:
        self.name = f"tilewhisper, policy {model.policy.name} on {', '.join(model.backend_labels)}"
        self._model = model

    def transcribe(self, file: str, options: SpeechOptions) -> Pass:
        started = time.perf_counter()
        segments, info = self._model.transcribe(
            file,
            options.language,
            options.task,
            audio_context=options.audio_context,
            beam_size=1,
            temperature=0,
            condition_on_previous_text=False,
        )
        found = list(segments)
        seconds = time.perf_counter() - started
        stages = {stage.name: stage.wall_seconds for stage in segments.report().stages}
        tokens = tuple(token for segment in found for token in segment.tokens)
        return Pass(tokens, "".join(segment.text for segment in found), info.duration, seconds, stages)


class TransformersContender:
    """transformers' feature extractor and `generate` on the same weights, with the same suppressed tokens."""

    name = "transformers generate"

    def __init__(self, model: "TransformersWhisper") -> None:
        self._model = model

    def transcribe(self, file: str, options: SpeechOptions) -> Pass:
        started = time.perf_counter()
        samples = reader.decode_audio(file)
        generated = self._model.generate(samples, options.language, options.task)
        seconds = time.perf_counter() - started
        return Pass(generated.tokens, generated.text, len(samples) / SAMPLE_RATE, seconds)


@dataclass(frozen=True)
class Row:
    """One contender's figures over all files. Minimum and maximum are of whole runs."""

    name: str
    rtf_median: float
    rtf_min: float
    rtf_max: float
    speed: float
    ratio: float
    """The baseline's median time divided by this contender's; above 1 is faster than the baseline."""
    same_text: int
    """Number of files with the same text as the baseline's."""
    same_tokens: int
    stages: dict[str, float]
    """Median wall seconds of a run by stage; empty if the contender reports none."""
    runs: list[float]
    """Seconds of each run."""


@dataclass(frozen=True)
class Benchmark:
    model: str
    files: list[str]
    audio_seconds: float
    speech: SpeechOptions
    baseline: str
    """The contender that ratios and texts are compared with."""
    rows: list[Row]
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    contenders: Sequence[Contender], files: Sequence[str], options: SpeechOptions, runs: int, baseline: Contender
) -> list[Row]:
    """Warm each contender up, then let them take turns `runs` times. `baseline` is one of the contenders."""
    warm_ups = {contender.name: [contender.transcribe(file, options) for file in files] for contender in contenders}
    timed: dict[str, list[list[Pass]]] = {contender.name: [] for contender in contenders}
    for _ in range(runs):
        for contender in contenders:
            timed[contender.name].append([contender.transcribe(file, options) for file in files])
    baseline_seconds = statistics.median(_seconds(run) for run in timed[baseline.name])
    return [_row(name, warm_ups[name], warm_ups[baseline.name], timed[name], baseline_seconds) for name in warm_ups]


def _row(
    name: str, warm_up: list[Pass], baseline_warm_up: list[Pass], runs: list[list[Pass]], baseline_seconds: float
) -> Row:
    seconds = [_seconds(run) for run in runs]
    audio_seconds = sum(done.audio_seconds for done in warm_up)
    median = statistics.median(seconds)
    return Row(
        name=name,
        rtf_median=median / audio_seconds,
        rtf_min=min(seconds) / audio_seconds,
        rtf_max=max(seconds) / audio_seconds,
        speed=audio_seconds / median,
        ratio=baseline_seconds / median,
        same_text=sum(a.text == b.text for a, b in zip(warm_up, baseline_warm_up, strict=True)),
        same_tokens=sum(a.tokens == b.tokens for a, b in zip(warm_up, baseline_warm_up, strict=True)),
        stages={
            stage: statistics.median(sum(done.stages[stage] for done in run) for run in runs)
            for stage in warm_up[0].stages
        },
        runs=seconds,
    )


def _seconds(run: list[Pass]) -> float:
    return sum(done.seconds for done in run)
