"""From encoder states to tokens: detect the language, decode greedily under the token rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewhisper.engine.decoder import Decoder
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
def detect_language(decoder: Decoder, states: Tensor, sot: int, languages: Mapping[str, int]) -> list[dict[str, float]]:
    """Each row's language probabilities by code, likeliest first, from encoder states (batch, positions, d_model)."""
    hidden = decoder.step(torch.full((len(states), 1), sot), decoder.start(states))
    codes, ids = list(languages), list(languages.values())
    probabilities = decoder.logits(hidden[:, -1])[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        {codes[i]: float(row[i]) for i in places} for row, places in zip(probabilities, order.tolist(), strict=True)
    ]


@torch.inference_mode()
def greedy(
    decoder: Decoder,
    states: Tensor,
    prompt: Sequence[int],
    rules: TokenRules,
    *,
    sot: int,
    no_speech: int,
    max_new_tokens: int,
) -> list[DecodedWindow]:
    """Decode encoder states (batch, positions, d_model) after one prompt, the likeliest token each step.

    Ends a row at its end-of-text, and all at `max_new_tokens` or a full text context.
    """
    batch = len(states)
    state = decoder.start(states)
    hidden = decoder.step(torch.tensor([list(prompt)] * batch), state)
    no_speech_probs = decoder.logits(hidden[:, list(prompt).index(sot)]).softmax(dim=-1)[:, no_speech].tolist()

    rows: list[list[int]] = [[] for _ in range(batch)]
    logprobs: list[list[float]] = [[] for _ in range(batch)]
    open_rows = set(range(batch))
    limit = min(max_new_tokens, decoder.text_context - len(prompt))
    for count in range(1, limit + 1):
        logits = decoder.logits(hidden[:, -1])
        rules.forbid(logits, rows)
        decoder.settle(logits, hidden[:, -1], rules.timestamp_begin)
        rules.prefer_timestamps(logits)
        chosen = logits.argmax(dim=-1)
        chosen_logprobs = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)).tolist()
        for i in sorted(open_rows):
            logprobs[i].append(chosen_logprobs[i])
            if (token := int(chosen[i])) == rules.eot:
                open_rows.discard(i)
            else:
                rows[i].append(token)
        if not open_rows or count == limit:
            break
        hidden = decoder.step(chosen[:, None], state)
    return [
        DecodedWindow(
            tokens=tuple(row),
            avg_logprob=sum(scores) / (len(row) + 1),
            text_logprob=_mean([s for token, s in zip(row, scores, strict=False) if token < rules.eot]),
            no_speech_prob=no_speech_prob,
        )
        for row, scores, no_speech_prob in zip(rows, logprobs, no_speech_probs, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("-inf")
