"""Run one model's encoder under many policies, to compare their times and their error against float32.

Every policy gets its own copy of the modules that shares the weights, and each backend is created once, so that
policies can take turns without being routed and prepared again. Times of single sites are the router's own counts.
"""

import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.routing.modules import RoutedEncoder, apply_policy
from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.policy_file import any_layer
from tilewhisper.engine.routing.router import Counts
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend

BASELINE = "torch"
"""The float32 backend that errors are measured against."""

Launch = tuple[str, ...]
"""Names of the sites that run as one call if they are on one backend."""


@dataclass(frozen=True)
class LaunchKind:
    """The same launch in all layers: the same shapes, so the same times."""

    name: str
    """The launch's name with `*` for the layer."""
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, in wall seconds of one window."""

    seconds: float
    sites: Mapping[str, float]


class Trials:
    """Measure policies on one model. Close it (or use it as a context manager) to release its backends."""

    def __init__(self, model: Any, mels: Sequence[Tensor], create: Callable[[str], Backend] = registry.create) -> None:
        """`model` is an unrouted Whisper model; `mels` are log-mel windows (n_mels, 3000)."""
        self._model = model
        self._mels = [mel[None] for mel in mels]
        self._backends: list[Backend] = []

        @cache
        def create_once(name: str) -> Backend:
            self._backends.append(create(name))
            return self._backends[-1]

        self._create = create_once
        routed, encoder = self._encoder(Policy(BASELINE, BASELINE))
        self.kinds = _kinds(routed)
        self.sites = tuple(routed.router.plans)
        """Names of all products, in the order of execution."""
        self.expected = [encoder(mel) for mel in self._mels]
        """The float32 states of each window, (1, 1500, d_model)."""

    def error(self, policy: Policy, windows: int | None = None) -> float:
        """Relative Frobenius error of the encoder states: the worst of the first `windows`, all if None.

        0 for the baseline by definition; NaN if any window's error is. Raises EngineError and KernelError if the policy
        cannot run.
        """
        if policy.default == BASELINE and not policy.rules:
            return 0.0
        return self.error_of(self.states(policy, windows))

    def error_of(self, states: Sequence[Tensor]) -> float:
        """`error` of states that are there already, one for each of the first windows."""
        pairs = zip(states, self.expected, strict=False)
        return float(torch.stack([relative_error(found, expected) for found, expected in pairs]).max())

    def states(self, policy: Policy, windows: int | None = None) -> list[Tensor]:
        """The encoder states of the first `windows`, all if None. Raises EngineError and KernelError."""
        _, encoder = self._encoder(policy)
        return [encoder(mel) for mel in self._mels[:windows]]

    def time_in_turn(self, policies: Mapping[str, Policy], rounds: int) -> dict[str, Timing]:
        """Time the first window under each policy, after a warm-up.

        The policies take turns, so that a machine that slows down slows all of them.
        """
        encoders = {name: self._encoder(policy) for name, policy in policies.items()}
        for _, encoder in encoders.values():
            encoder(self._mels[0])
        passes: dict[str, list[Timing]] = {name: [] for name in policies}
        for _ in range(rounds):
            for name, (routed, encoder) in encoders.items():
                passes[name].append(_time_pass(routed, encoder, self._mels[0]))
        return {name: _median(timings) for name, timings in passes.items()}

    def close(self) -> None:
        for backend in self._backends:
            backend.close()

    def __enter__(self) -> "Trials":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def twin(self) -> Any:
        """A copy of the unrouted model that shares its weights."""
        # deepcopy does not copy objects that its memo lists as copied already.
        memo = {id(tensor): tensor for tensor in chain(self._model.parameters(), self._model.buffers())}
        return copy.deepcopy(self._model, memo)

    def _encoder(self, policy: Policy) -> tuple[RoutedEncoder, Encoder]:
        twin = self.twin()
        routed = apply_policy(twin, policy, self._create)
        return routed, Encoder(twin.model.encoder, routed)


def relative_error(states: Tensor, expected: Tensor) -> Tensor:
    """The Frobenius norm of the difference, relative to that of `expected`: a scalar, NaN where either has one."""
    error: Tensor = torch.linalg.vector_norm(states - expected) / torch.linalg.vector_norm(expected)
    return error


def _kinds(routed: RoutedEncoder) -> tuple[LaunchKind, ...]:
    launches: defaultdict[str, list[str]] = defaultdict(list)
    for site, plan in routed.router.plans.items():
        launches[plan.launch].append(site)
    kinds: defaultdict[str, list[Launch]] = defaultdict(list)
    for launch, sites in launches.items():
        kinds[any_layer(launch)].append(tuple(sites))
    return tuple(LaunchKind(name, tuple(members)) for name, members in kinds.items())


def _time_pass(routed: RoutedEncoder, encoder: Encoder, mel: Tensor) -> Timing:
    counts = Counts()
    with routed.router.counting(counts):
        started = time.perf_counter()
        encoder(mel)
        seconds = time.perf_counter() - started
    return Timing(seconds, {site: count.seconds for site, count in counts.items()})


def _median(timings: Sequence[Timing]) -> Timing:
    sites = {site: statistics.median(timing.sites[site] for timing in timings) for site in timings[0].sites}
    return Timing(statistics.median(timing.seconds for timing in timings), sites)
