"""From encoder states to tokens: detect the language; search for the tokens under the rules, window by window or many
together."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch

from tilewhisper.engine.beam import BeamSearch
from tilewhisper.engine.decoder import Decoder, Heard
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.penalties import no_repeat_ngram, repetition_penalty
from tilewhisper.engine.sampling import Sampling
from tilewhisper.engine.search import Candidate, Hypotheses, Search
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
    hidden = torch.cat(decoder.join(decoder.start(), windows, [[sot]] * len(windows)))
    codes, ids = list(languages), list(languages.values())
    probabilities = decoder.logits(hidden)[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        {codes[i]: float(row[i]) for i in places} for row, places in zip(probabilities, order.tolist(), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Attempt:
    """A window to be decoded at one temperature: by beams at 0, by samples above."""

    window: Heard
    prompt: Sequence[int]
    """All that comes before the window's own tokens: start-of-transcript, and what goes before and after it."""
    temperature: float


@dataclass(eq=False)
class _Going:
    """An attempt under way."""

    attempt: Attempt
    search: Search
    hypotheses: Hypotheses
    rows: list[int]
    """Of the batch: one for each live hypothesis."""
    no_speech_prob: float


class Batch:
    """Attempts that are decoded together, step by step. They may come at any step and leave when they are over.

    What comes of one does not depend on the others.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, rules: TokenRules, options: TranscriptionOptions
    ) -> None:
        self._decoder, self._tokenizer, self._rules, self._options = decoder, tokenizer, rules, options
        self._going: list[_Going] = []
        self._state = decoder.start()
        self._outputs = torch.zeros(0, decoder.d_model)  # of the last step, row by row

    def __len__(self) -> int:
        return len(self._going)

    @torch.inference_mode()
    def add(self, attempts: Sequence[Attempt]) -> None:
        """Read the prompts of more. Raises IndexError for one that does not fit the text context."""
        if not attempts:
            return
        decoder, sot, prompts = self._decoder, self._tokenizer.sot, [list(attempt.prompt) for attempt in attempts]
        read = decoder.join(self._state, [attempt.window for attempt in attempts], prompts)
        at_sot = torch.stack([row[prompt.index(sot)] for row, prompt in zip(read, prompts, strict=True)])
        no_speech_probs = decoder.logits(at_sot).softmax(dim=-1)[:, self._tokenizer.no_speech].tolist()
        most, rows = self._options.max_new_tokens or decoder.text_context // 2, count(len(self._outputs))
        for attempt, no_speech_prob in zip(attempts, no_speech_probs, strict=True):
            search = _search(self._options, attempt.temperature, self._tokenizer.eot)
            hypotheses = search.start(min(most, decoder.text_context - len(attempt.prompt)))
            self._going.append(_Going(attempt, search, hypotheses, [next(rows)], no_speech_prob))
        self._outputs = torch.cat([self._outputs, *(row[-1:] for row in read)])

    @torch.inference_mode()
    def step(self) -> list[tuple[Attempt, DecodedWindow]]:
        """A token more of each; gives those that are over, and what came of them.

        An attempt is over when its search is, and at the latest after `options.max_new_tokens` (None: half the text
        context) or where the text context is full.
        """
        for search, alike in _by_search(self._going):
            candidates = iter(self._candidates(search, alike))
            for one in alike:
                offered = list(islice(candidates, len(one.rows)))
                one.rows = [one.rows[source] for source in search.advance(one.hypotheses, offered)]
                one.hypotheses.room -= 1
        over = [one for one in self._going if one.hypotheses.room <= 0 or one.hypotheses.enough]
        self._leave(over)
        if self._going:
            newest = [one.tokens[-1:] for going in self._going for one in going.hypotheses.live]
            self._outputs = self._decoder.step(torch.tensor(newest), self._state)[:, -1]
        return [(one.attempt, self._decoded(one)) for one in over]

    def _candidates(self, search: Search, alike: Sequence[_Going]) -> list[list[Candidate]]:
        """What may come next, row by row: by the scores under all rules, exact for those that count."""
        decoder, rules, options = self._decoder, self._rules, self._options
        hidden = self._outputs[[row for one in alike for row in one.rows]]
        windows = [one.hypotheses for one in alike]
        tokens = [one.tokens for window in windows for one in window.live]
        logits = decoder.logits(hidden)
        rules.forbid(logits, tokens)
        no_repeat_ngram(logits, tokens, options.no_repeat_ngram_size)
        # what a penalty pushes down makes room for as many others, whose scores must be exact too
        penalised = 0 if options.repetition_penalty == 1 else max(map(len, tokens))
        decoder.settle(logits, hidden, rules.timestamp_begin, search.keep + penalised)
        repetition_penalty(logits, tokens, options.repetition_penalty)
        rules.prefer_timestamps(logits, decoder.likeliest)
        return search.candidates(logits, windows, decoder.likeliest)

    def _leave(self, over: Sequence[_Going]) -> None:
        """Where one leaves the last takes its place, since each row that moves takes its caches along."""
        for one in over:
            self._going[self._going.index(one)] = self._going[-1]
            self._going.pop()
        self._state.select([row for one in self._going for row in one.rows])
        rows = count()
        for one in self._going:
            one.rows = list(islice(rows, len(one.rows)))
        self._outputs = self._outputs[: next(rows)]

    def _decoded(self, one: _Going) -> DecodedWindow:
        best, tokenizer = one.search.best(one.hypotheses), self._tokenizer
        text = [score for token, score in zip(best.tokens, best.logprobs, strict=False) if token < tokenizer.eot]
        return DecodedWindow(
            tokens=best.tokens,
            avg_logprob=best.logprob / (len(best.tokens) + 1),
            text_logprob=sum(text) / len(text) if text else float("-inf"),
            no_speech_prob=one.no_speech_prob,
            temperature=one.attempt.temperature,
            compression_ratio=compression_ratio(tokenizer.decode(best.tokens).strip()),
        )


def decode(batch: Batch, attempts: Sequence[Attempt]) -> list[DecodedWindow]:
    """What comes of each, all of them together."""
    batch.add(attempts)
    found: dict[Attempt, DecodedWindow] = {}
    while len(batch):
        found.update(batch.step())
    return [found[attempt] for attempt in attempts]


def compression_ratio(text: str) -> float:
    """How much shorter zlib makes the text: above 2.4 it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _search(options: TranscriptionOptions, temperature: float, eot: int) -> Search:
    if temperature == 0:
        return BeamSearch(eot, options.beam_size, options.length_penalty, options.patience)
    return Sampling(eot, options.best_of, options.length_penalty, temperature, options.seed)


def _by_search(going: Sequence[_Going]) -> Iterable[tuple[Search, list[_Going]]]:
    groups: defaultdict[Search, list[_Going]] = defaultdict(list)
    for one in going:
        groups[one.search].append(one)
    return groups.items()
