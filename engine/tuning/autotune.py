"""Find the fastest policy for one model on this machine whose encoder states stay within an error bound of float32.

The tuner chooses a backend for each launch (see `LaunchKind`):

1. Each candidate alone, on each kind of launch in all layers: the error of the encoder states, and the time, measured
   in turn with the other candidates.
2. Start from the fastest candidate of each kind. While the measured error of the whole encoder exceeds the bound, the
   kind with the most squared error per second saved moves to a more exact backend.
3. Single layers return to the faster backend as long as the bound permits.
4. The result and the uniform policies run end to end in turn; the fastest within the bound is chosen.

Errors do not add up exactly: they guide the search, and only the measured error of a whole encoder decides. The search
is greedy: no further layer fits within the bound, but another mix with as many layers might.

Times and errors are of windows of 30 s. Other lengths and other speech probably behave alike; that is not measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.errors import EngineError
from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.policy_file import compact
from tilewhisper.engine.tuning.evaluation import BASELINE, Launch, LaunchKind, Trials
from tilewhisper.kernels.base import KernelError

DEFAULT_BOUND = 5e-3
"""Relative error of the encoder states: within it 59 of 60 clips of test-other kept their text (tiny.en and base)."""
DEFAULT_ROUNDS = 7
BROKEN = 0.1
"""Relative error of the states above which a kernel counts as broken, whatever the bound: 8-bit kernels stay below."""

WORTHWHILE = 0.01
"""Fraction of the time of all products. A kind with less to gain is not searched layer by layer: it would be noise."""

Choice = dict[Launch, str]
"""The backend of each launch."""


@dataclass(frozen=True)
class Measurement:
    """One backend on one kind of launch, in all layers."""

    error: float
    """Relative error of the encoder states if everything else runs in float32."""
    seconds: float = 0.0
    """Per window, all layers."""
    exclusion: str = ""
    """Why the backend is excluded; it is not timed then."""


Measurements = Mapping[LaunchKind, Mapping[str, Measurement]]


@dataclass(frozen=True)
class PolicyMeasurement:
    """A policy measured end to end."""

    policy: Policy
    seconds: float
    """Median of an encoder pass over one window."""
    error: float


@dataclass(frozen=True)
class Tuning:
    """All measurements and the chosen policy."""

    bound: float
    rounds: int
    measurements: Measurements
    policies: tuple[PolicyMeasurement, ...]
    """The uniform policies and, unless it is one of them, the result of the search; measured in turn."""
    chosen: PolicyMeasurement
    choice: Mapping[Launch, str]
    """`chosen` by launch."""


def tune(
    trials: Trials,
    candidates: Sequence[str],
    bound: float = DEFAULT_BOUND,
    rounds: int = DEFAULT_ROUNDS,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Measure `candidates` and float32, and choose. `progress` receives a description of each step."""
    names = tuple(dict.fromkeys((BASELINE, *candidates)))
    measurements = _with_times(trials, _measure_errors(trials, names, progress), names, rounds, progress)
    progress("searching")
    choice = _Search(trials, measurements, bound).run()
    found = _policy("tuned", choice)
    policies = {
        name: Policy(name, name) for name in names if all(_usable(of_kind, name) for of_kind in measurements.values())
    }
    if found.rules:
        policies[found.name] = found
    progress("timing whole policies in turn")
    timings = trials.time_in_turn(policies, rounds)
    measured = tuple(
        PolicyMeasurement(policy, timings[name].seconds, trials.error(policy)) for name, policy in policies.items()
    )
    chosen = min((entry for entry in measured if entry.error <= bound), key=lambda entry: entry.seconds)
    if chosen.policy is not found:
        choice = _everywhere(trials, chosen.policy.default)
    return Tuning(bound, rounds, measurements, measured, chosen, choice)


def _measure_errors(trials: Trials, names: Sequence[str], progress: Callable[[str], None]) -> Measurements:
    def measure(kind: LaunchKind, name: str) -> Measurement:
        if name == BASELINE:
            return Measurement(0.0)
        progress(f"measuring the error of {name} on {kind.name}")
        try:
            error = trials.error(_policy(name, _everywhere(trials, BASELINE) | dict.fromkeys(kind.launches, name)))
        except (EngineError, KernelError) as e:
            return Measurement(float("nan"), exclusion=str(e))
        wrong = f"wrong results: the relative error of the encoder states is {error:.2g}"
        return Measurement(error, exclusion="" if error <= BROKEN else wrong)

    return {kind: {name: measure(kind, name) for name in names} for kind in trials.kinds}


def _with_times(
    trials: Trials, measurements: Measurements, names: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> Measurements:
    """The measurements with their times. A candidate runs on all its launches at once: one pass each per round."""
    policies = {}
    for name in names:
        usable = {
            launch: name for kind in measurements if _usable(measurements[kind], name) for launch in kind.launches
        }
        policies[name] = _policy(name, _everywhere(trials, BASELINE) | usable)
    progress(f"timing {', '.join(names)} in turn")
    timings = trials.time_in_turn(policies, rounds)

    def timed(kind: LaunchKind, name: str, measurement: Measurement) -> Measurement:
        if measurement.exclusion:
            return measurement
        seconds = sum(timings[name].sites[site] for launch in kind.launches for site in launch)
        return replace(measurement, seconds=seconds)

    return {
        kind: {name: timed(kind, name, measurement) for name, measurement in of_kind.items()}
        for kind, of_kind in measurements.items()
    }


class _Search:
    """Start from the fastest backend of each kind and move to more exact ones until the bound is met."""

    def __init__(self, trials: Trials, measurements: Measurements, bound: float) -> None:
        self._trials = trials
        self._bound = bound
        self._usable = {
            kind: {name: measurement for name, measurement in of_kind.items() if not measurement.exclusion}
            for kind, of_kind in measurements.items()
        }

    def run(self) -> Choice:
        """A choice whose measured error is within the bound."""
        fastest = {kind: self._by_time(kind)[0] for kind in self._usable}
        chosen = self._within_bound(fastest)
        choice = _by_launch(chosen)

        def slowdown(kind: LaunchKind) -> float:
            return self._time_lost(kind, chosen[kind], fastest[kind])

        negligible = WORTHWHILE * sum(self._usable[kind][name].seconds for kind, name in chosen.items())
        slowed = [kind for kind in chosen if slowdown(kind) > negligible]
        for kind in sorted(slowed, key=slowdown, reverse=True):
            order = self._by_time(kind)
            for faster in order[: order.index(chosen[kind])]:
                slow = [launch for launch in kind.launches if choice[launch] == chosen[kind]]
                for launch in self._by_error(slow, faster):
                    if self._meets_bound(choice | {launch: faster}):
                        choice[launch] = faster
        return choice

    def _within_bound(self, chosen: Mapping[LaunchKind, str]) -> dict[LaunchKind, str]:
        chosen = dict(chosen)
        while not self._meets_bound(_by_launch(chosen)):
            kind, backend = max(self._more_exact(chosen), key=lambda move: self._worth(chosen[move[0]], *move))
            chosen[kind] = backend
        return chosen

    def _more_exact(self, chosen: Mapping[LaunchKind, str]) -> Iterator[tuple[LaunchKind, str]]:
        for kind, of_kind in self._usable.items():
            now = chosen[kind]
            if now != BASELINE:
                yield from ((kind, name) for name in of_kind if of_kind[name].error < of_kind[now].error)
                yield kind, BASELINE

    def _worth(self, before: str, kind: LaunchKind, after: str) -> float:
        """Squared error removed per second lost, because independent errors add up by their squares."""
        of_kind = self._usable[kind]
        return (of_kind[before].error ** 2 - of_kind[after].error ** 2) / max(
            self._time_lost(kind, after, before), 1e-9
        )

    def _time_lost(self, kind: LaunchKind, slower: str, faster: str) -> float:
        return self._usable[kind][slower].seconds - self._usable[kind][faster].seconds

    def _by_time(self, kind: LaunchKind) -> list[str]:
        return sorted(self._usable[kind], key=lambda name: self._usable[kind][name].seconds)

    def _by_error(self, launches: Sequence[Launch], backend: str) -> list[Launch]:
        """Sort by the error of the backend on each launch alone. One window is enough, since only the order counts."""
        exact = _everywhere(self._trials, BASELINE)
        return sorted(
            launches, key=lambda launch: self._trials.error(_policy("layer", exact | {launch: backend}), windows=1)
        )

    def _meets_bound(self, choice: Choice) -> bool:
        return self._trials.error(_policy("tuned", choice)) <= self._bound


def _usable(of_kind: Mapping[str, Measurement], name: str) -> bool:
    return not of_kind[name].exclusion


def _everywhere(trials: Trials, backend: str) -> Choice:
    return _by_launch(dict.fromkeys(trials.kinds, backend))


def _by_launch(chosen: Mapping[LaunchKind, str]) -> Choice:
    return {launch: backend for kind, backend in chosen.items() for launch in kind.launches}


def _policy(name: str, choice: Choice) -> Policy:
    return compact(name, {site: backend for launch, backend in choice.items() for site in launch})
