"""From encoder states to tokens: detect the language, decode greedily under the token rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tilewhisper.engine.decoder import Decoder, Heard
from tilewhisper.engine.token_rules import TokenRules


@dataclass(frozen=True)
class DecodedWindow:
    """The tokens of one window, without prompt and end-of-text, and how sure the model was of them."""

    tokens: tuple[int, ...]
    avg_logprob: float
    """Mean log-probability a token under the rules, the end-of-text counted."""
    text_logprob: float
    """The same over the text alone, without timestamps and end-of-text; -inf where there is none."""
    no_speech_prob: float
    """Probability of the no-speech token right after start-of-transcript."""


@torch.inference_mode()
def detect_language(
    decoder: Decoder, windows: Sequence[Heard], sot: int, languages: Mapping[str, int]
) -> list[dict[str, float]]:
    """Each window's language probabilities by code, likeliest first."""
    hidden = decoder.step(torch.full((len(windows), 1), sot), decoder.start(windows))
    codes, ids = list(languages), list(languages.values())
    probabilities = decoder.logits(hidden[:, -1])[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        {codes[i]: float(row[i]) for i in places} for row, places in zip(probabilities, order.tolist(), strict=True)
    ]


@dataclass
class _Row:
    """One window as it is decoded."""

    tokens: list[int]
    logprobs: list[float]

    def window(self, eot: int, no_speech_prob: float) -> DecodedWindow:
        return DecodedWindow(
            tokens=tuple(self.tokens),
            avg_logprob=sum(self.logprobs) / (len(self.tokens) + 1),
            text_logprob=_mean([s for token, s in zip(self.tokens, self.logprobs, strict=False) if token < eot]),
            no_speech_prob=no_speech_prob,
        )


@torch.inference_mode()
def greedy(
    decoder: Decoder,
    windows: Sequence[Heard],
    prompt: Sequence[int],
    rules: TokenRules,
    *,
    sot: int,
    no_speech: int,
    max_new_tokens: int,
) -> list[DecodedWindow]:
    """Decode windows after one prompt, the likeliest token each step.

    A window leaves the batch at its end-of-text; all end at `max_new_tokens` or a full text context.
    """
    state = decoder.start(windows)
    hidden = torch.stack(decoder.read([prompt] * len(windows), state))
    no_speech_probs = decoder.logits(hidden[:, list(prompt).index(sot)]).softmax(dim=-1)[:, no_speech].tolist()
    rows = [_Row([], []) for _ in windows]
    going, hidden = rows, hidden[:, -1]
    limit = min(max_new_tokens, decoder.text_context - len(prompt))
    for count in range(1, limit + 1):
        logits = decoder.logits(hidden)
        rules.forbid(logits, [row.tokens for row in going])
        decoder.settle(logits, hidden, rules.timestamp_begin)
        rules.prefer_timestamps(logits)
        best, chosen = logits.max(dim=-1)
        logprobs = (best - logits.logsumexp(dim=-1)).tolist()
        stay = []
        for place, (row, token, logprob) in enumerate(zip(going, chosen.tolist(), logprobs, strict=True)):
            row.logprobs.append(logprob)
            if token != rules.eot:
                row.tokens.append(token)
                stay.append(place)
        if not stay or count == limit:
            break
        if len(stay) < len(going):
            going, chosen = [going[place] for place in stay], chosen[stay]
            state.select(stay)
        hidden = decoder.step(chosen[:, None], state)[:, -1]
    return [row.window(rules.eot, probability) for row, probability in zip(rows, no_speech_probs, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("-inf")
