"""The report of a run: its time by stage, and the backend that ran each product. `Clock` measures the stages.

`rtf` is processing time / audio time (lower is better), `speed` its inverse. Both count everything from opening the
file to the last token; loading the model is not in the total and is reported separately.
"""

import functools
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tilewhisper.engine.energy import Energy
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.routing.router import DecoderPlan, SiteCount, SitePlan, shape_of
from tilewhisper.engine.startup import Startup
from tilewhisper.models.audio.facts import AudioFacts

PACKAGES = ("tilewhisper", "torch", "transformers", "numpy", "soundfile", "soxr", "av", "tokenizers")


class StageName(StrEnum):
    """The stages of a run, in the order of the report."""

    DECODE_AUDIO = "decode audio"
    VAD = "vad"
    LOG_MEL = "log-mel"
    ENCODE = "encode"
    CROSS_KV = "cross-attention K/V"
    DETECT_LANGUAGE = "detect language"
    PROMPT = "prompt"
    DECODE = "decode"
    EVIDENCE = "compare with silence"
    WORD_TIMES = "word times"


OPTIONAL_STAGES = (StageName.VAD, StageName.DETECT_LANGUAGE, StageName.EVIDENCE, StageName.WORD_TIMES)
"""Not reported for a run that does not use them."""
DECODER_STAGES = (
    StageName.CROSS_KV,
    StageName.DETECT_LANGUAGE,
    StageName.PROMPT,
    StageName.DECODE,
    StageName.EVIDENCE,
)
"""Stages that run the decoder."""


@dataclass(frozen=True)
class Stage:
    """The time of one stage of a run."""

    name: str
    """A StageName, or `total` or `load`."""
    calls: int
    wall_seconds: float
    cpu_seconds: float
    """Summed over all threads of the process."""
    first_call_seconds: float
    """Wall time of the first call, which includes warming up; part of `wall_seconds`."""


@dataclass(frozen=True)
class SiteReport:
    """One routable product: the backend the policy requests, and the backends that ran it."""

    site: str
    shape: str
    """(M, K) x (K, N) for one 30 s window, preceded by the number of heads if there are several."""
    rule: str
    requested: str
    used: dict[str, int]
    """Number of calls by backend."""
    calls: int
    seconds: float
    """Wall time; if sites share a launch, this site's part of it by multiply-adds."""
    device_calls: int
    """Kernel calls on a device, 0 on the host; the calls of a shared launch are repeated at each of its sites."""
    planned_device_calls: int
    """The calls that the plans of these calls have: `device_calls` unless one was repeated after a failure."""
    device_seconds: float
    """The device's part of `seconds`; the rest is the host's."""
    launch: str
    """The backend call that the site is part of."""
    fallback_reasons: list[str]


@dataclass(frozen=True)
class DecoderReport:
    """The decoder's backend: requested by the policy, and used."""

    requested: str
    used: str
    fallback_reason: str | None


@dataclass(frozen=True)
class Machine:
    """The machine of a run, and the versions of Python and its packages."""

    cpu: str
    cpu_capability: str
    logical_cpus: int
    threads: int
    os: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class RunReport:
    """One file's transcription."""

    file: str
    model: str
    model_reason: str
    """Why this model was used: requested, or the rule of the default."""
    weights: str
    """The source of the weights."""
    policy: str
    backends: list[str]
    """Labels of the backends in use; the label of an emulated device says so."""
    backend_overrides: list[str]
    language: str
    language_probability: float | None
    """None if the language was not detected."""
    language_no_speech_prob: float | None
    """No-speech probability of the window that decided the language: above `no_speech_threshold`, no window held
    speech, and the language is a guess. None if the language was not detected."""
    options: TranscriptionOptions
    audio: AudioFacts
    """How the file was read: its track, and what is missing of it."""
    audio_seconds: float
    rtf: float | None
    """Seconds of work per second of audio; None where there is no audio."""
    speed: float | None
    """Seconds of audio per second of work; None where there is no audio."""
    cpu_seconds_per_audio_second: float | None
    """CPU time of all threads for a second of audio; None where there is no audio. What other runs compute at the same
    moment is counted too."""
    energy: Energy
    """Of the whole processor packages, from the start of the run to its report."""
    startup: Startup
    load: Stage
    stages: list[Stage]
    total: Stage
    audio_context: str
    """How much of the silence after a short window was encoded, with `auto` resolved."""
    batch_size: int
    """The largest number of windows that were decoded together."""
    windows: int
    """Encoded windows, counting a window again if it is encoded again."""
    windows_reencoded: int
    """Windows re-encoded with full context, because the text of their approximate tail failed the checks."""
    tokens: int
    tokens_per_second: float | None
    """Decoded tokens per second of the decode stage, which excludes prompts; None if no token was decoded."""
    peak_memory_bytes: int | None
    """The largest resident size of the process so far; None if the system does not report it."""
    device_read_backs: int
    """Times that results were copied from a device to the host: once for each encode where whole layers stay there."""
    sites: list[SiteReport]
    decoder: DecoderReport
    machine: Machine

    @property
    def language_is_guess(self) -> bool:
        """Whether the language was detected in a window that may hold no speech."""
        threshold, probability = self.options.no_speech_threshold, self.language_no_speech_prob
        return threshold is not None and probability is not None and probability > threshold

    @property
    def decoder_seconds(self) -> float:
        """Wall time of all stages that run the decoder."""
        return sum(stage.wall_seconds for stage in self.stages if stage.name in DECODER_STAGES)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers."""
        return asdict(self)


class Clock:
    """Adds up wall and CPU seconds by stage name."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - wall, time.process_time() - cpu)

    def stage(self, name: str) -> Stage:
        """The stage's time so far, all zeros if it was not called."""
        return self._stages.get(name, Stage(name, 0, 0.0, 0.0, 0.0))

    def add(self, name: str, wall: float, cpu: float) -> None:
        """Add one call of `wall` and `cpu` seconds."""
        old = self.stage(name)
        first = old.first_call_seconds if old.calls else wall
        self._stages[name] = Stage(name, old.calls + 1, old.wall_seconds + wall, old.cpu_seconds + cpu, first)


class Seconds(NamedTuple):
    """Wall and CPU seconds."""

    wall: float = 0.0
    cpu: float = 0.0


class SharedClock:
    """Adds up one window's share of the time of batched work, by stage name.

    Windows may join and leave the batch at any time: the share of a window is the difference between two readings, at
    its start and its end.
    """

    def __init__(self) -> None:
        self._shares: dict[str, Seconds] = {}

    @contextmanager
    def __call__(self, stages: Mapping[str, float], windows: int) -> Iterator[None]:
        """Measure work for `windows` windows; `stages` gives each stage's fraction of the time."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            for name, fraction in stages.items():
                if fraction:
                    before, share = self._shares.get(name, Seconds()), fraction / windows
                    self._shares[name] = Seconds(before.wall + wall * share, before.cpu + cpu * share)

    def reading(self) -> dict[str, Seconds]:
        return dict(self._shares)

    def since(self, reading: Mapping[str, Seconds]) -> dict[str, Seconds]:
        """The share since an earlier reading."""
        pairs = {name: (now, reading.get(name, Seconds())) for name, now in self._shares.items()}
        return {name: Seconds(now.wall - then.wall, now.cpu - then.cpu) for name, (now, then) in pairs.items()}


def site_report(plan: SitePlan, count: SiteCount) -> SiteReport:
    site = plan.route.site
    return SiteReport(
        site=site.name,
        shape=str(shape_of(site)),
        rule=plan.route.rule,
        requested=plan.route.backend,
        used=dict(count.calls),
        calls=count.calls.total(),
        seconds=count.seconds,
        device_calls=count.device_calls,
        planned_device_calls=count.planned_device_calls,
        device_seconds=count.device_seconds,
        launch=plan.launch,
        fallback_reasons=[*([plan.fallback_reason] if plan.fallback_reason else []), *count.failures],
    )


def decoder_report(plan: DecoderPlan) -> DecoderReport:
    return DecoderReport(plan.route.backend, plan.backend.label, plan.fallback_reason)


def machine() -> Machine:
    return Machine(
        cpu=_cpu_name(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        logical_cpus=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        os=platform.platform(),
        python=platform.python_version(),
        packages=dict(_versions(PACKAGES)),
    )


def peak_memory_bytes() -> int | None:
    """The largest resident size of this process so far; None if the system does not report it."""
    try:
        # Linux's `ru_maxrss` survives exec, so it may be the peak of the program that started this one.
        status = Path("/proc/self/status").read_text("utf-8")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Of the installed packages. Cached: the look-up takes 6 ms, and every file has a report."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@functools.cache
def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
