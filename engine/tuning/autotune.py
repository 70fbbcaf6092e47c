"""Find the fastest policy for one model on this machine whose encoder states stay within a bound of float32's.

What is chosen is a backend for each launch (see `trials.Kind`). First every candidate is put on each kind of launch,
all layers, alone: the error it brings to the final states, then its time, the candidates in turn. The search starts
from the fastest of each kind; while the measured error of the whole is above the bound, the kind that brings the most
squared error for the time it wins goes to a more exact backend; then single layers get the faster one back as far as
the bound lets. Errors do not add up exactly: they guide the search, but only a measured whole is ever accepted; and
the search is greedy: no layer more would go in, but another mix of as many might. At last what was found and the
uniform policies run end to end in turn, and the fastest of those within the bound is the answer.

Times and errors are of windows of 30 s. That other lengths and other speech behave alike is likely, not measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.errors import EngineError
from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.policy_file import compact
from tilewhisper.engine.tuning.evaluation import BASELINE, Kind, Launch, Trials
from tilewhisper.kernels.base import KernelError

DEFAULT_BOUND = 5e-3
"""Relative error of the encoder's states: within it 59 of 60 clips of test-other kept their text (tiny.en and base)."""
DEFAULT_ROUNDS = 7
WRONG = 0.1
"""Relative error of the states above which a kernel is taken for broken, whatever the bound: 8 bits bring less."""

WORTHWHILE = 0.01
"""Of all products' time: a kind with less to win is not searched layer by layer. It would be noise."""

Choice = dict[Launch, str]


@dataclass(frozen=True)
class Figure:
    """One backend on one kind of launch, in all layers."""

    error: float
    """Of the final states, when everything else is float32."""
    seconds: float = 0.0
    """Of all layers, a window."""
    why_not: str = ""
    """Why it was left out; such a one is never timed."""


Figures = Mapping[Kind, Mapping[str, Figure]]


@dataclass(frozen=True)
class Whole:
    """A policy from end to end."""

    policy: Policy
    seconds: float
    """Median of an encoder pass over one window."""
    error: float


@dataclass(frozen=True)
class Tuning:
    """What was measured, and the policy that follows."""

    bound: float
    rounds: int
    figures: Figures
    wholes: tuple[Whole, ...]
    """The uniform policies and, where it is none of them, what the search found: measured in turn."""
    chosen: Whole
    choice: Mapping[Launch, str]
    """`chosen` launch by launch."""


def tune(
    trials: Trials,
    candidates: Sequence[str],
    bound: float = DEFAULT_BOUND,
    rounds: int = DEFAULT_ROUNDS,
    progress: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Measure `candidates`, float32 always among them, and choose. `progress` is told what is being done."""
    names = tuple(dict.fromkeys((BASELINE, *candidates)))
    figures = _timed(trials, _errors(trials, names, progress), names, rounds, progress)
    progress("searching")
    choice = _Search(trials, figures, bound).run()
    found = _policy("tuned", choice)
    policies = {name: Policy(name, name) for name in names if all(_usable(figures[kind], name) for kind in figures)}
    if found.rules:
        policies[found.name] = found
    progress("whole policies in turn")
    timings = trials.time_in_turn(policies, rounds)
    wholes = tuple(Whole(policy, timings[name].seconds, trials.error(policy)) for name, policy in policies.items())
    chosen = min((whole for whole in wholes if whole.error <= bound), key=lambda whole: whole.seconds)
    if chosen.policy is not found:
        choice = _everywhere(trials, chosen.policy.default)
    return Tuning(bound, rounds, figures, wholes, chosen, choice)


def _errors(trials: Trials, names: Sequence[str], progress: Callable[[str], None]) -> Figures:
    def figure(kind: Kind, name: str) -> Figure:
        if name == BASELINE:
            return Figure(0.0)
        progress(f"error of {name} on {kind.name}")
        try:
            error = trials.error(_policy(name, _everywhere(trials, BASELINE) | dict.fromkeys(kind.launches, name)))
        except (EngineError, KernelError) as e:
            return Figure(float("nan"), why_not=str(e))
        return Figure(error, why_not="" if error <= WRONG else f"wrong results: the states are off by {error:.2g}")

    return {kind: {name: figure(kind, name) for name in names} for kind in trials.kinds}


def _timed(
    trials: Trials, figures: Figures, names: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> Figures:
    """The figures with their times. A candidate runs wherever it can at once, so that a round is one pass of each."""
    policies = {}
    for name in names:
        usable = {launch: name for kind in figures if _usable(figures[kind], name) for launch in kind.launches}
        policies[name] = _policy(name, _everywhere(trials, BASELINE) | usable)
    progress(f"time of {', '.join(names)} in turn")
    timings = trials.time_in_turn(policies, rounds)

    def timed(kind: Kind, name: str, figure: Figure) -> Figure:
        if figure.why_not:
            return figure
        return replace(figure, seconds=sum(timings[name].sites[site] for launch in kind.launches for site in launch))

    return {kind: {name: timed(kind, name, one) for name, one in figures[kind].items()} for kind in figures}


class _Search:
    """From the fastest of each kind back to what the bound lets."""

    def __init__(self, trials: Trials, figures: Figures, bound: float) -> None:
        self._trials = trials
        self._bound = bound
        self._figures = {
            kind: {name: figure for name, figure in of_kind.items() if not figure.why_not}
            for kind, of_kind in figures.items()
        }

    def run(self) -> Choice:
        """A choice whose measured error is within the bound."""
        fastest = {kind: self._by_time(kind)[0] for kind in self._figures}
        chosen = self._stepped_back(fastest)
        choice = _of_kinds(chosen)
        little = WORTHWHILE * sum(self._figures[kind][name].seconds for kind, name in chosen.items())
        behind = [kind for kind in chosen if self._lost(kind, chosen[kind], fastest[kind]) > little]
        for kind in sorted(behind, key=lambda kind: self._lost(kind, chosen[kind], fastest[kind]), reverse=True):
            order = self._by_time(kind)
            for faster in order[: order.index(chosen[kind])]:
                still = [launch for launch in kind.launches if choice[launch] == chosen[kind]]
                for launch in self._by_error(still, faster):
                    if self._within(choice | {launch: faster}):
                        choice[launch] = faster
        return choice

    def _stepped_back(self, chosen: Mapping[Kind, str]) -> dict[Kind, str]:
        chosen = dict(chosen)
        while not self._within(_of_kinds(chosen)):
            kind, backend = max(self._more_exact(chosen), key=lambda move: self._worth(chosen[move[0]], *move))
            chosen[kind] = backend
        return chosen

    def _more_exact(self, chosen: Mapping[Kind, str]) -> Iterator[tuple[Kind, str]]:
        for kind, of_kind in self._figures.items():
            now = chosen[kind]
            if now != BASELINE:
                yield from ((kind, name) for name in of_kind if of_kind[name].error < of_kind[now].error)
                yield kind, BASELINE

    def _worth(self, now: str, kind: Kind, then: str) -> float:
        """Squared error removed for a second lost: errors of independent origin add up by their squares."""
        of_kind = self._figures[kind]
        return (of_kind[now].error ** 2 - of_kind[then].error ** 2) / max(self._lost(kind, then, now), 1e-9)

    def _lost(self, kind: Kind, slower: str, faster: str) -> float:
        return self._figures[kind][slower].seconds - self._figures[kind][faster].seconds

    def _by_time(self, kind: Kind) -> list[str]:
        return sorted(self._figures[kind], key=lambda name: self._figures[kind][name].seconds)

    def _by_error(self, launches: Sequence[Launch], backend: str) -> list[Launch]:
        """The layers in which that backend alone errs the least first, judged by one window: it is only an order."""
        exact = _everywhere(self._trials, BASELINE)
        return sorted(
            launches, key=lambda launch: self._trials.error(_policy("layer", exact | {launch: backend}), windows=1)
        )

    def _within(self, choice: Choice) -> bool:
        return self._trials.error(_policy("tuned", choice)) <= self._bound


def _usable(of_kind: Mapping[str, Figure], name: str) -> bool:
    return not of_kind[name].why_not


def _everywhere(trials: Trials, backend: str) -> Choice:
    return _of_kinds(dict.fromkeys(trials.kinds, backend))


def _of_kinds(chosen: Mapping[Kind, str]) -> Choice:
    return {launch: backend for kind, backend in chosen.items() for launch in kind.launches}


def _policy(name: str, choice: Choice) -> Policy:
    return compact(name, {site: backend for launch, backend in choice.items() for site in launch})
