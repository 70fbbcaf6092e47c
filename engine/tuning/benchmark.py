"""Policies side by side with each other and with transformers' own `generate`: same audio, same options, one run.

Every contender first runs each file once, which warms it up and gives the text it is compared by. Then all take turns,
so that a machine that slows down slows them alike. Audio decoding and log-mel are timed too; loading is not.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tilewhisper.engine.report import Machine
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE


@dataclass(frozen=True)
class Speech:
    """What is asked of every contender."""

    language: str | None
    task: str
    audio_context: str = "auto"
    """Of this engine; transformers knows the whole one only."""


@dataclass(frozen=True)
class Pass:
    """One contender through one file."""

    tokens: tuple[int, ...]
    text: str
    audio_seconds: float
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage, where the contender tells."""


class Contender(Protocol):
    name: str

    def transcribe(self, file: str, speech: Speech) -> Pass: ...


class PolicyContender:
    """This engine under one policy, as transformers decodes: greedily, once, each window by itself."""

    def __init__(self, model: WhisperModel) -> None:
        self.name = f"tilewhisper, policy {model.policy.name} on {', '.join(model.backend_labels)}"
        self._model = model

    def transcribe(self, file: str, speech: Speech) -> Pass:
        started = time.perf_counter()
        segments, info = self._model.transcribe(
            file,
            speech.language,
            speech.task,
            audio_context=speech.audio_context,
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
    """transformers' feature extractor and `generate` on the same weights, with the same token rules."""

    name = "transformers generate"

    def __init__(self, model: TransformersWhisper) -> None:
        self._model = model

    def transcribe(self, file: str, speech: Speech) -> Pass:
        started = time.perf_counter()
        samples = reader.decode_audio(file)
        generated = self._model.generate(samples, speech.language, speech.task)
        seconds = time.perf_counter() - started
        return Pass(generated.tokens, generated.text, len(samples) / SAMPLE_RATE, seconds)


@dataclass(frozen=True)
class Row:
    """One contender's figures over all files; spread is of the runs' totals."""

    name: str
    rtf_median: float
    rtf_min: float
    rtf_max: float
    speed: float
    ratio: float
    """The baseline's median time over this one's: above 1 is faster than the baseline."""
    same_text: int
    """Files whose text equals the baseline's."""
    same_tokens: int
    stages: dict[str, float]
    """Median wall seconds of a run by stage; empty where the contender does not tell."""
    runs: list[float]
    """Seconds of each run."""


@dataclass(frozen=True)
class Benchmark:
    model: str
    files: list[str]
    audio_seconds: float
    speech: Speech
    baseline: str
    """The contender that ratios and texts are compared with."""
    rows: list[Row]
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    contenders: Sequence[Contender], files: Sequence[str], speech: Speech, runs: int, baseline: Contender
) -> list[Row]:
    """Warm each contender up, then let all take turns `runs` times. `baseline` is one of the contenders."""
    texts = {one.name: [one.transcribe(file, speech) for file in files] for one in contenders}
    timed: dict[str, list[list[Pass]]] = {one.name: [] for one in contenders}
    for _ in range(runs):
        for one in contenders:
            timed[one.name].append([one.transcribe(file, speech) for file in files])
    reference = statistics.median(_seconds(run) for run in timed[baseline.name])
    return [_row(name, texts[name], texts[baseline.name], timed[name], reference) for name in texts]


def _row(name: str, mine: list[Pass], theirs: list[Pass], runs: list[list[Pass]], reference: float) -> Row:
    seconds = [_seconds(run) for run in runs]
    duration = sum(one.audio_seconds for one in mine)
    median = statistics.median(seconds)
    return Row(
        name=name,
        rtf_median=median / duration,
        rtf_min=min(seconds) / duration,
        rtf_max=max(seconds) / duration,
        speed=duration / median,
        ratio=reference / median,
        same_text=sum(a.text == b.text for a, b in zip(mine, theirs, strict=True)),
        same_tokens=sum(a.tokens == b.tokens for a, b in zip(mine, theirs, strict=True)),
        stages={
            stage: statistics.median(sum(one.stages[stage] for one in run) for run in runs) for stage in mine[0].stages
        },
        runs=seconds,
    )


def _seconds(run: list[Pass]) -> float:
    return sum(one.seconds for one in run)
