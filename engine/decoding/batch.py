"""From encoder states to tokens: detect the language; search for the tokens under the rules, window by window or many
together."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor

from tilewhisper.engine.decoding.beam import BeamSearch
from tilewhisper.engine.decoding.decoder import CrossKV, Decoder
from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search
from tilewhisper.engine.decoding.penalties import no_repeat_ngram, repetition_penalty
from tilewhisper.engine.decoding.sampling import Sampling
from tilewhisper.engine.decoding.token_rules import TokenRules
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


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
    decoder: Decoder, windows: Sequence[CrossKV], sot: int, languages: Mapping[str, int]
) -> list[dict[str, float]]:
    """Each window's language probabilities by code, likeliest first."""
    state = decoder.start()
    state.add(windows)
    codes, ids = list(languages), list(languages.values())
    probabilities = decoder.logits(decoder.step([[sot]] * len(windows), state))[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        {codes[i]: float(row[i]) for i in places} for row, places in zip(probabilities, order.tolist(), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Attempt:
    """A window to be decoded at one temperature: by beams at 0, by samples above."""

    window: CrossKV
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
    no_speech_prob: float = 0.0

    @property
    def new(self) -> bool:
        """Whether it has said nothing yet."""
        return not self.hypotheses.live[0].tokens

    @property
    def unread(self) -> list[Sequence[int]]:
        """Row by row, the tokens that the decoder has not seen: at first the prompt, then the newest."""
        return [self.attempt.prompt] if self.new else [one.tokens[-1:] for one in self.hypotheses.live]


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

    def __len__(self) -> int:
        return len(self._going)

    @property
    def prompt_share(self) -> float:
        """How much of what the next step reads are prompts: of its tokens."""
        prompts = sum(len(one.attempt.prompt) for one in self._going if one.new)
        newest = sum(len(one.rows) for one in self._going if not one.new)
        return prompts / max(1, prompts + newest)

    @torch.inference_mode()
    def add(self, attempts: Sequence[Attempt]) -> None:
        """More of them; the next step reads their prompts. Raises IndexError for one that does not fit the text
        context."""
        context, rows = self._decoder.text_context, count(len(self._state.lengths))
        most = self._options.max_new_tokens or context // 2
        for attempt in attempts:
            if (room := context - len(attempt.prompt)) < 0:
                raise IndexError(f"a prompt of {len(attempt.prompt)} tokens does not fit the text context of {context}")
            search = _search(self._options, attempt.temperature, self._tokenizer.eot)
            self._going.append(_Going(attempt, search, search.start(min(most, room)), [next(rows)]))
        self._state.add([attempt.window for attempt in attempts])

    @torch.inference_mode()
    def step(self) -> list[tuple[Attempt, DecodedWindow]]:
        """A token more of each, after its prompt if need be; gives those that are over, and what came of them.

        An attempt is over when its search is, and at the latest after `options.max_new_tokens` (None: half the text
        context) or where the text context is full.
        """
        if not self._going:
            return []
        unread = [tokens for one in self._going for tokens in one.unread]
        outputs = self._decoder.step(unread, self._state).split(list(map(len, unread)))
        for search, alike in _by_search(self._going):
            candidates = iter(self._candidates(search, alike, outputs))
            for one in alike:
                offered = list(islice(candidates, len(one.rows)))
                one.rows = [one.rows[source] for source in search.advance(one.hypotheses, offered)]
                one.hypotheses.room -= 1
        over = [one for one in self._going if one.hypotheses.room <= 0 or one.hypotheses.enough]
        self._leave(over)
        return [(one.attempt, self._decoded(one)) for one in over]

    def _candidates(self, search: Search, alike: Sequence[_Going], outputs: Sequence[Tensor]) -> list[list[Candidate]]:
        """What may come next, row by row: by the scores under all rules, exact for those that count. `outputs`
        (unread, d_model) are those of the batch's rows."""
        decoder, rules, options = self._decoder, self._rules, self._options
        last = [outputs[row][-1] for one in alike for row in one.rows]
        new = [one for one in alike if one.new]
        at_sot = [outputs[row][one.attempt.prompt.index(self._tokenizer.sot)] for one in new for row in one.rows]
        hidden = torch.stack(last + at_sot)
        logits, first = decoder.logits(hidden).split([len(last), len(new)])
        for one, scores in zip(new, first, strict=True):
            one.no_speech_prob = float(scores.softmax(dim=-1)[self._tokenizer.no_speech])
        hidden = hidden[: len(last)]
        windows = [one.hypotheses for one in alike]
        tokens = [one.tokens for window in windows for one in window.live]
        rules.forbid(logits, tokens)
        no_repeat_ngram(logits, tokens, options.no_repeat_ngram_size)
        # what a penalty pushes down makes room for as many others, whose scores must be exact too
        penalised = 0 if options.repetition_penalty == 1 else max(map(len, tokens))
        decoder.rescore(logits, hidden, rules.timestamp_begin, search.keep + penalised)
        repetition_penalty(logits, tokens, options.repetition_penalty)
        rules.prefer_timestamps(logits, decoder.top_k)
        return search.candidates(logits, windows, decoder.top_k)

    def _leave(self, over: Sequence[_Going]) -> None:
        """Where one leaves the last takes its place, since each row that moves takes its caches along."""
        for one in over:
            self._going[self._going.index(one)] = self._going[-1]
            self._going.pop()
        self._state.select([row for one in self._going for row in one.rows])
        rows = count()
        for one in self._going:
            one.rows = list(islice(rows, len(one.rows)))

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
