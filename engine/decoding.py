"""From encoder states to tokens: detect the language; search for the tokens under the rules, at one temperature."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from tilewhisper.engine.beam import BeamSearch
from tilewhisper.engine.decoder import Decoder, Heard
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.penalties import no_repeat_ngram, repetition_penalty
from tilewhisper.engine.sampling import Sampling
from tilewhisper.engine.search import Hypothesis, Search
from tilewhisper.engine.token_rules import TokenRules
from tilewhisper.models.tokenizer import Tokenizer


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
    temperature: float
    compression_ratio: float
    """How much shorter zlib makes the text: above 2.4 it repeats itself."""


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


@torch.inference_mode()
def decode(
    decoder: Decoder,
    windows: Sequence[Heard],
    prompts: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    rules: TokenRules,
    options: TranscriptionOptions,
    temperature: float,
) -> list[DecodedWindow]:
    """Decode windows together, each after its own prompt: by beams at temperature 0, by samples above.

    A window leaves the batch when its search is over, and at the latest after `options.max_new_tokens` (None: half the
    text context) or where the text context is full. Raises IndexError for a prompt that does not fit it.
    """
    search = _search(options, temperature, tokenizer.eot)
    state = decoder.start(windows)
    read = decoder.read(prompts, state)
    at_sot = torch.stack([row[list(prompt).index(tokenizer.sot)] for row, prompt in zip(read, prompts, strict=True)])
    no_speech_probs = decoder.logits(at_sot).softmax(dim=-1)[:, tokenizer.no_speech].tolist()
    most = options.max_new_tokens or decoder.text_context // 2
    every = [search.start(min(most, decoder.text_context - len(prompt))) for prompt in prompts]
    going, hidden = every, torch.stack([row[-1] for row in read])
    while True:
        tokens = [one.tokens for window in going for one in window.live]
        scores = _scores(decoder, hidden, tokens, search.keep, rules, options)
        candidates = iter(search.candidates(scores, going, decoder.likeliest))
        stay, rows, first = [], [], 0
        for window in going:
            count = len(window.live)
            sources = search.advance(window, list(islice(candidates, count)))
            window.room -= 1
            if window.room > 0 and not window.enough:
                stay.append(window)
                rows += [first + source for source in sources]
            first += count
        if not stay:
            break
        going = stay
        state.select(rows)
        newest = torch.tensor([one.tokens[-1:] for window in going for one in window.live])
        hidden = decoder.step(newest, state)[:, -1]
    return [
        _decoded(search.best(window), no_speech_prob, tokenizer, temperature)
        for window, no_speech_prob in zip(every, no_speech_probs, strict=True)
    ]


def compression_ratio(text: str) -> float:
    """How much shorter zlib makes the text: above 2.4 it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _search(options: TranscriptionOptions, temperature: float, eot: int) -> Search:
    if temperature == 0:
        return BeamSearch(eot, options.beam_size, options.length_penalty, options.patience)
    return Sampling(eot, options.best_of, options.length_penalty, temperature, options.seed)


def _scores(
    decoder: Decoder,
    hidden: Tensor,
    tokens: Sequence[Sequence[int]],
    keep: int,
    rules: TokenRules,
    options: TranscriptionOptions,
) -> Tensor:
    """Outputs of a step (rows, d_model) and each row's tokens so far to scores (rows, n_vocab) under all rules, exact
    for the `keep` likeliest."""
    logits = decoder.logits(hidden)
    rules.forbid(logits, tokens)
    no_repeat_ngram(logits, tokens, options.no_repeat_ngram_size)
    # what a penalty pushes down makes room for as many others, whose scores must be exact too
    penalised = 0 if options.repetition_penalty == 1 else max(map(len, tokens))
    decoder.settle(logits, hidden, rules.timestamp_begin, keep + penalised)
    repetition_penalty(logits, tokens, options.repetition_penalty)
    rules.prefer_timestamps(logits)
    return logits


def _decoded(best: Hypothesis, no_speech_prob: float, tokenizer: Tokenizer, temperature: float) -> DecodedWindow:
    text = [score for token, score in zip(best.tokens, best.logprobs, strict=False) if token < tokenizer.eot]
    return DecodedWindow(
        tokens=best.tokens,
        avg_logprob=best.logprob / (len(best.tokens) + 1),
        text_logprob=sum(text) / len(text) if text else float("-inf"),
        no_speech_prob=no_speech_prob,
        temperature=temperature,
        compression_ratio=compression_ratio(tokenizer.decode(best.tokens).strip()),
    )
