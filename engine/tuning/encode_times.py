"""The predicted time of an encode in each way that policies use an NPU, beside this machine's CPU.

Counted are the encoder's layers for one window of 30 s: the stem, the audio and the decoder run on the CPU in any case.
Nothing overlaps: while the device runs, the host waits, and its cores are free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.report import machine
from tilewhisper.engine.tuning.cpu_layers import CPU_POLICIES, CpuLayer, measure
from tilewhisper.engine.tuning.planning import EncoderPlan, Scope, layer_shape, plan_encoder, sites_of_model
from tilewhisper.kernels.base import LayerShape, UnsupportedShape
from tilewhisper.kernels.xdna.cost import ArrayProfile, loads_of_steps
from tilewhisper.kernels.xdna.geometries import WHOLE_ARRAY, find_geometry
from tilewhisper.kernels.xdna.layer_plan import INPUTS, OUTPUTS, plan_layer
from tilewhisper.models.checkpoint.catalog import SIZES

SAME = 0.05
"""Times that differ by less are called equal: neither a prediction nor a run is more exact."""


@dataclass(frozen=True)
class Way:
    """One way of running a model's layers with an NPU, in seconds of a window."""

    name: str
    policy: str
    device: float
    host: float
    """One core fills and reads the device's buffers."""
    rest: float
    """All threads compute what is left to the CPU; as measured on this machine."""
    launches: int
    switches: int
    round_trips: int
    """Results that the host reads back."""

    @property
    def seconds(self) -> float:
        return self.device + self.host + self.rest

    def busy_cores(self, threads: int) -> float:
        """Mean number of busy cores."""
        return (self.host + threads * self.rest) / self.seconds


@dataclass(frozen=True)
class EncodeTimes:
    """A model's layers on one NPU and on this machine's CPU."""

    models: str
    layers: int
    profile: str
    ways: tuple[Way, ...]
    policies: tuple[tuple[str, float], ...]
    """Policies of the CPU and their seconds."""
    threads: int
    cpu_name: str
    missing: tuple[str, ...]
    """Backends of these policies that cannot run here, each with the reason."""
    why_no_layers: str = ""
    """Why whole layers cannot run on the device; empty if they can."""

    @property
    def best(self) -> Way:
        return min(self.ways, key=lambda way: way.seconds)

    @property
    def verdict(self) -> str:
        """Who is faster, and how many cores become free, in words."""
        best = self.best
        faster = [name for name, seconds in self.policies if seconds < best.seconds * (1 - SAME)]
        slower = [name for name, seconds in self.policies if seconds > best.seconds * (1 + SAME)]
        if len(faster) == len(self.policies):
            who, frees = "the CPU is faster", "the NPU only frees"
        elif faster:
            who, frees = f"the CPU is faster with policy {' and '.join(faster)} only", "the NPU frees"
        elif len(slower) == len(self.policies):
            who, frees = "the NPU is faster", "the NPU frees"
        else:
            who, frees = "the NPU is as fast as the CPU", "the NPU frees"
        cpu = " and ".join(f"{seconds:.3f} s by policy {name}" for name, seconds in self.policies)
        free = f"{self.threads - best.busy_cores(self.threads):.1f} of {self.threads} cores"
        return f"{who}: {best.seconds:.3f} s on the NPU ({best.name}), {cpu}; {frees} {free}"

    def to_json(self) -> dict[str, Any]:
        ways = [asdict(way) | {"seconds": way.seconds, "busy_cores": way.busy_cores(self.threads)} for way in self.ways]
        own = {"ways": ways, "policies": dict(self.policies), "best": self.best.name, "verdict": self.verdict}
        return asdict(self) | own


def of_model(encoder: EncoderPlan, profile: ArrayProfile, threads: int = 0) -> EncodeTimes:
    """A planned encoder beside this machine's CPU, which is measured with so many threads (0: torch's own number).

    Raises OptionError, and ProductFailed if a backend of the CPU computes wrong results.
    """
    _set_threads(threads)
    shape, layers = layer_shape([planned.site for planned in encoder.sites])
    return compare(encoder, profile, measure(shape), layers)


def of_all_sizes(profiles: Sequence[ArrayProfile], threads: int = 0) -> tuple[EncodeTimes, ...]:
    """Every official size on every profile; models with the same layers share a row. Raises like `of_model`."""
    _set_threads(threads)
    groups: defaultdict[tuple[int, int, int], list[str]] = defaultdict(list)
    for size in SIZES.values():
        groups[size.encoder_layers, size.d_model, size.heads].append(size.name)
    found = []
    for names in groups.values():
        sites = sites_of_model(names[0])
        shape, layers = layer_shape(sites)
        cpu = measure(shape)
        multilingual = ", ".join(name for name in names if not name.endswith(".en"))
        for profile in profiles:
            encoder = plan_encoder(multilingual, sites, find_geometry(WHOLE_ARRAY, profile.device), profile)
            found.append(compare(encoder, profile, cpu, layers))
    return tuple(found)


def sizes_to_json(sizes: Sequence[EncodeTimes]) -> dict[str, Any]:
    return {"sizes": [times.to_json() for times in sizes], "prediction": True}


def compare(encoder: EncoderPlan, profile: ArrayProfile, cpu: CpuLayer, layers: int) -> EncodeTimes:
    """`encoder` is planned for the whole array with this profile; `cpu` is one of its layers."""
    projections, _, products = encoder.scopes
    here = machine()
    why_not = _why_no_layers(cpu.shape, profile)
    return EncodeTimes(
        models=encoder.model,
        layers=layers,
        profile=profile.name,
        ways=(
            _by_products("projections", "npu", projections, layers * cpu.without_projections),
            _by_products("every product", "npu-full", products, layers * cpu.without_products),
            *([] if why_not else [_whole_layers(cpu.shape, layers, profile)]),
        ),
        policies=tuple((name, cpu.policy(name, layers)) for name in CPU_POLICIES),
        threads=here.threads,
        cpu_name=here.cpu,
        missing=cpu.missing,
        why_no_layers=why_not,
    )


def _by_products(name: str, policy: str, scope: Scope, rest: float) -> Way:
    return Way(name, policy, scope.cost.device, scope.cost.host, rest, scope.calls, scope.switches, len(scope.sites))


def _whole_layers(shape: LayerShape, layers: int, profile: ArrayProfile) -> Way:
    """The input is uploaded before the first layer and the result read back after the last."""
    chain = plan_layer(shape, profile.device)
    loads = loads_of_steps([step.launches for step in chain.steps])
    moved = sum(chain.buffers[name].size for name in (*INPUTS, *OUTPUTS))
    return Way(
        name="whole layers",
        policy="npu-layer",
        device=layers * sum(profile.device_cost(load).device for load in loads),
        host=profile.host_cost(moved).seconds,
        rest=0.0,
        launches=layers * chain.calls,
        switches=layers * sum(load.switches for load in loads),
        round_trips=1,
    )


def _why_no_layers(shape: LayerShape, profile: ArrayProfile) -> str:
    try:
        plan_layer(shape, profile.device)
    except UnsupportedShape as e:
        return str(e)
    return ""


def _set_threads(threads: int) -> None:
    if threads < 0:
        raise OptionError(f"--threads must be >= 0, got {threads}; 0 leaves the number to torch")
    if threads:
        torch.set_num_threads(threads)
