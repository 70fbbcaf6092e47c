"""What a run cost and what ran where. Frozen records; `Clock` fills the stage times.

Two numbers, never one word: `rtf` is processing time / audio time (lower is better), `speed` its inverse. Both leave
out loading the model, which stands apart, and count everything else from opening the file to the last token.
"""

import functools
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.routing.router import DecoderPlan, SiteCount, SitePlan, shape_of
from tilewhisper.engine.startup import Startup

PACKAGES = ("tilewhisper", "torch", "transformers", "numpy", "soundfile", "soxr", "av", "tokenizers")

DECODER_STAGES = ("keys and values", "detect language", "prompt", "decode")


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    calls: int
    wall_seconds: float
    cpu_seconds: float
    """Of all threads of the process."""
    first_call_seconds: float
    """Wall time of the first call, which pays for warming up; part of `wall_seconds`."""


@dataclass(frozen=True)
class SiteReport:
    """One routable product: what the policy asked for, and what ran."""

    site: str
    shape: str
    """(M, K) x (K, N) of one 30 s window, with the number of heads in front where there are several."""
    rule: str
    requested: str
    used: dict[str, int]
    """Calls by the backend that ran them."""
    calls: int
    seconds: float
    """Wall time; where sites share a launch, this site's part of it by multiply-adds."""
    device_calls: int
    """Kernel calls on a device, 0 on the host; those of a shared launch stand at each of its sites."""
    device_seconds: float
    """Of `seconds`, what the device took; the rest is the host's."""
    launch: str
    """The backend call the site is part of."""
    fallback_reasons: list[str]


@dataclass(frozen=True)
class DecoderReport:
    """Where the decoder ran: what the policy asked for, and what it got."""

    requested: str
    used: str
    fallback_reason: str | None


@dataclass(frozen=True)
class Machine:
    """Where it ran, and with which versions."""

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
    weights: str
    """Where the weights came from."""
    policy: str
    backends: list[str]
    """In use; an emulated one says so."""
    backend_overrides: list[str]
    language: str
    options: TranscriptionOptions
    audio_seconds: float
    rtf: float
    speed: float
    startup: Startup
    load: Stage
    stages: list[Stage]
    total: Stage
    audio_context: str
    """How much of the silence after a short window was encoded; `auto` settled."""
    batch_size: int
    """The most windows that were decoded together."""
    windows: int
    """Windows encoded."""
    windows_again_in_full: int
    """Of these, windows encoded once more in full, because the cheap silence came out badly."""
    tokens: int
    tokens_per_second: float | None
    """Decoded tokens in a second of the decode stage, which leaves out prompts; None where nothing was decoded."""
    peak_memory_bytes: int | None
    """The largest resident size of the process so far; None where the system does not tell."""
    sites: list[SiteReport]
    decoder: DecoderReport
    machine: Machine

    @property
    def decoder_seconds(self) -> float:
        """Wall time of all stages in which the decoder runs."""
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
        """All zeros where there was no call."""
        return self._stages.get(name, Stage(name, 0, 0.0, 0.0, 0.0))

    def add(self, name: str, wall: float, cpu: float) -> None:
        """One call more, of so many seconds."""
        old = self.stage(name)
        first = old.first_call_seconds if old.calls else wall
        self._stages[name] = Stage(name, old.calls + 1, old.wall_seconds + wall, old.cpu_seconds + cpu, first)


class Spent(NamedTuple):
    """Seconds."""

    wall: float = 0.0
    cpu: float = 0.0


class SharedClock:
    """Adds up one part of what is done for several at once, who may come and go, by stage name: whoever was there from
    one reading to another has taken the difference."""

    def __init__(self) -> None:
        self._spent: dict[str, Spent] = {}

    @contextmanager
    def __call__(self, shares: Mapping[str, float], parts: int) -> Iterator[None]:
        """`shares` says how much of the time each stage has."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            for name, share in shares.items():
                if share:
                    before, part = self._spent.get(name, Spent()), share / parts
                    self._spent[name] = Spent(before.wall + wall * part, before.cpu + cpu * part)

    def reading(self) -> dict[str, Spent]:
        return dict(self._spent)

    def since(self, reading: Mapping[str, Spent]) -> dict[str, Spent]:
        """What has come since then."""
        pairs = {name: (now, reading.get(name, Spent())) for name, now in self._spent.items()}
        return {name: Spent(now.wall - then.wall, now.cpu - then.cpu) for name, (now, then) in pairs.items()}


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
    """The largest resident size this process had so far; None where the system does not tell."""
    try:
        # Linux's `ru_maxrss` may be that of the process which started this one: it outlives exec.
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Looked up once: 6 ms, which every file's report would take again."""
    return {name: version(name) for name in packages}


@functools.cache
def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
