"""The sensitivity of an encoder to lower precision: what each product, alone on a backend, does to states and text, and
the time it saves.

The errors of single products show a designer of mixed precision where the outliers are. They do not add up exactly:
`autotune` measures whole policies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.errors import EngineError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.routing.policy import DecoderRoute, Policy, Rule
from tilewhisper.engine.routing.policy_file import compact
from tilewhisper.engine.runtime import Runtime
from tilewhisper.engine.tuning.evaluation import BASELINE, Trials
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import KernelError, Settings
from tilewhisper.models.checkpoint.loader import Checkpoint

EXACT = Policy(BASELINE, BASELINE, decoder=DecoderRoute(BASELINE))


@dataclass(frozen=True)
class Effect:
    """One product on one backend, everything else in float32."""

    site: str
    backend: str
    error: float
    """Relative Frobenius error of the encoder states, the worst window's; NaN where the backend cannot run."""
    text_error: float | None
    """Mean absolute change of the log-probability of each token of the float32 model's own text, in nats; None without
    text."""
    changed_tokens: int | None
    """Tokens of that text which are no longer the most probable ones at their places."""
    seconds_saved: float
    """Against float32, per window of 30 s. A product that shares a launch has its part of the time."""
    exclusion: str = ""
    """Why the backend cannot run it."""


@dataclass(frozen=True)
class Sensitivity:
    effects: tuple[Effect, ...]
    seconds: dict[str, float]
    """Of each product in float32, per window of 30 s."""
    text: tuple[str, ...]
    """The float32 model's text of each window."""
    text_tokens: int
    rounds: int


class TextProbe:
    """The text that the float32 model finds in windows, and how other encoder states change its probabilities."""

    def __init__(
        self, checkpoint: Checkpoint, states: Sequence[Tensor], settings: Settings = registry.DEFAULTS
    ) -> None:
        """`checkpoint` has an unrouted model, which is routed in place; `states` are the float32 ones by window."""
        runtime = self._runtime = Runtime(checkpoint, EXACT, partial(registry.create, settings=settings))
        windows = [runtime.project_cross_kv(Encoded(each)) for each in states]
        multilingual = runtime.tokenizer.is_multilingual
        language = runtime.detect_language(windows[0]).code if multilingual else "en"
        options = TranscriptionOptions(language, beam_size=1, temperature=0.0, without_timestamps=True)
        self._prompt = runtime.tokenizer.prompt(language, options.task, False)
        eot = runtime.tokenizer.eot
        self._tokens = [
            [token for token in window.tokens if token < eot] for window in runtime.decode(windows, options)
        ]
        self.texts = tuple(runtime.tokenizer.decode(tokens).strip() for tokens in self._tokens)
        self._expected = [self._probabilities(*pair)[0] for pair in zip(states, self._tokens, strict=True)]

    @property
    def token_count(self) -> int:
        return sum(map(len, self._tokens))

    def change(self, states: Sequence[Tensor]) -> tuple[float, int]:
        """The `text_error` and `changed_tokens` of an Effect."""
        errors, changed = [torch.zeros(0)], 0
        for each, tokens, expected in zip(states, self._tokens, self._expected, strict=True):
            logprobs, most_probable = self._probabilities(each, tokens)
            errors.append((logprobs - expected).abs())
            changed += int((most_probable != torch.tensor(tokens)).sum())
        return float(torch.cat(errors).mean()), changed

    def _probabilities(self, states: Tensor, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The log-probability of each token of the text in its place, and the most probable token there."""
        decoder = self._runtime.decoder
        state = decoder.start()
        state.add([decoder.project_cross_kv(Encoded(states))])
        hidden = decoder.step([[*self._prompt, *tokens]], state)[len(self._prompt) - 1 :][: len(tokens)]
        logits = decoder.logits(hidden)
        decoder.make_exact(logits, hidden, tokens)
        logprobs = logits.log_softmax(dim=-1)
        return logprobs.gather(1, torch.tensor(tokens).long()[:, None])[:, 0], logprobs.argmax(dim=-1)


def measure(
    trials: Trials,
    probe: TextProbe | None,
    backends: Sequence[str],
    rounds: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Sensitivity:
    """Each product on each of the backends. `probe` is None where the windows have no words."""
    effects = []
    for backend in backends:
        for site in trials.sites:
            progress(f"{site} on {backend}")
            effects.append(_effect(trials, probe, site, backend))
    progress(f"timing {', '.join((BASELINE, *backends))} in turn")
    policies = {BASELINE: EXACT}
    for backend in backends:
        usable = [effect.site for effect in effects if effect.backend == backend and not effect.exclusion]
        policies[backend] = compact(backend, {site: backend if site in usable else BASELINE for site in trials.sites})
    timings = trials.time_in_turn(policies, rounds)
    seconds = dict(timings[BASELINE].sites)
    timed = tuple(
        replace(effect, seconds_saved=seconds[effect.site] - timings[effect.backend].sites[effect.site])
        for effect in effects
    )
    text, tokens = (probe.texts, probe.token_count) if probe else ((), 0)
    return Sensitivity(timed, seconds, text, tokens, rounds)


def _effect(trials: Trials, probe: TextProbe | None, site: str, backend: str) -> Effect:
    try:
        states = trials.states(Policy(site, BASELINE, (Rule(site, backend),)))
    except (EngineError, KernelError) as e:
        return Effect(site, backend, float("nan"), None, None, 0.0, str(e))
    text_error, changed = probe.change(states) if probe and probe.token_count else (None, None)
    return Effect(site, backend, trials.error_of(states), text_error, changed, 0.0)
