"""The batch: windows decoded together, step by step, each with its own prompt, search and logits processor.

Windows may join before any step and leave after it. The result of one does not depend on the others.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice

import torch
from torch import Tensor

from tilewhisper.engine.decoding.decoder import CrossKV, Decoder
from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Search
from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class DecodedWindow:
    """The tokens of one window, without prompt and end-of-text, and how sure the model was of them."""

    tokens: tuple[int, ...]
    """The prefix, if any, and the decoded tokens."""
    avg_logprob: float
    """Mean log-probability per decoded token under the rules, end-of-text included."""
    logprobs: tuple[float, ...]
    """Of each decoded token, those of the prefix and end-of-text excluded."""
    text_logprob: float
    """The same over text tokens only, without timestamps and end-of-text; -inf where there is no text."""
    no_speech_prob: float
    """Probability of the no-speech token right after start-of-transcript."""
    temperature: float
    compression_ratio: float
    """Length of the text / its length compressed by zlib: above 2.4 it repeats itself."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One window to decode at one temperature."""

    cross_kv: CrossKV
    prompt: Sequence[int]
    """All tokens before the window's own, start-of-transcript among them."""
    temperature: float
    search: Search
    processor: LogitsProcessor
    prefix: Sequence[int] = ()
    """Tokens that the window's own begin with."""
    max_new_tokens: int | None = None
    """None is half the text context."""


@dataclass(eq=False)
class _Active:
    """An attempt in the batch."""

    attempt: Attempt
    hypotheses: Hypotheses
    rows: list[int]
    """Batch rows, one for each live hypothesis."""
    no_speech_prob: float = 0.0

    @property
    def is_new(self) -> bool:
        """Whether no token was decoded yet."""
        return not self.hypotheses.live[0].tokens

    @property
    def unread(self) -> list[Sequence[int]]:
        """Row by row, the tokens the decoder has not read: at first the prompt, then the newest token."""
        if self.is_new:
            return [(*self.attempt.prompt, *self.attempt.prefix)]
        return [live.tokens[-1:] for live in self.hypotheses.live]

    @property
    def is_finished(self) -> bool:
        return self.hypotheses.complete or self.hypotheses.tokens_left <= 0

    @property
    def live_tokens(self) -> list[tuple[int, ...]]:
        return [(*self.attempt.prefix, *live.tokens) for live in self.hypotheses.live]


class Batch:
    """Attempts that share decode steps. Not thread-safe."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer) -> None:
        self._decoder, self._tokenizer = decoder, tokenizer
        self._active: list[_Active] = []
        self._state = decoder.start()

    def __len__(self) -> int:
        return len(self._active)

    @property
    def prompt_share(self) -> float:
        """The share of prompt tokens among the tokens the next step reads."""
        prompts = sum(len(tokens) for active in self._active if active.is_new for tokens in active.unread)
        newest = sum(len(active.rows) for active in self._active if not active.is_new)
        return prompts / max(1, prompts + newest)

    @torch.inference_mode()
    def add(self, attempts: Sequence[Attempt]) -> None:
        """Add attempts; the next step reads their prompts.

        Raises IndexError, and adds none, where a prompt does not fit the text context.
        """
        context, rows = self._decoder.text_context, count(len(self._state.lengths))
        added = []
        for attempt in attempts:
            length = len(attempt.prompt) + len(attempt.prefix)
            if (left := context - length) < 0:
                raise IndexError(f"prompt and prefix must have at most {context} tokens, got {length}")
            most = attempt.max_new_tokens or context // 2
            added.append(_Active(attempt, attempt.search.start(min(most, left)), [next(rows)]))
        self._state.add([attempt.cross_kv for attempt in attempts])
        self._active += added

    @torch.inference_mode()
    def remove(self, attempt: Attempt) -> None:
        """Drop an attempt before it is finished; its rows are free at once."""
        self._leave([active for active in self._active if active.attempt is attempt])

    def clear(self) -> None:
        """Drop all attempts and their caches."""
        self._active, self._state = [], self._decoder.start()

    @torch.inference_mode()
    def step(self) -> list[tuple[Attempt, DecodedWindow]]:
        """Decode one more token of each attempt, after its prompt if need be; return the attempts that are finished.

        An attempt is finished when its search is, at the latest after `max_new_tokens` or at the end of the text
        context.
        """
        if not self._active:
            return []
        unread = [tokens for active in self._active for tokens in active.unread]
        logits, hidden = self._logits(self._decoder.step(unread, self._state), [*accumulate(map(len, unread))])
        for (search, processor), group in _by_method(self._active):
            rows = [row for active in group for row in active.rows]
            everything = len(rows) == len(hidden)
            of_group = (logits, hidden) if everything else (logits[rows], hidden[rows])
            candidates = iter(self._candidates(search, processor, group, *of_group))
            for active in group:
                offered = list(islice(candidates, len(active.rows)))
                active.rows = [active.rows[source] for source in search.advance(active.hypotheses, offered)]
                active.hypotheses.tokens_left -= 1
        finished = [active for active in self._active if active.is_finished]
        self._leave(finished)
        return [(active.attempt, self._decoded(active)) for active in finished]

    def _logits(self, outputs: Tensor, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Each row's next-token logits (rows, n_vocab) and decoder outputs (rows, d_model), rows in batch order.

        `outputs` (tokens, d_model) has each row's up to the next of `ends`. New attempts get their no-speech
        probability from the logits at start-of-transcript on the way: one pass over the output projection serves all.
        """
        new = [active for active in self._active if active.is_new]
        if not new:
            return self._decoder.logits(outputs), outputs
        sot, no_speech, starts = self._tokenizer.sot, self._tokenizer.no_speech, [0, *ends]
        at_sot = [starts[active.rows[0]] + active.attempt.prompt.index(sot) for active in new]
        hidden = outputs[[end - 1 for end in ends] + at_sot]
        logits, first = self._decoder.logits(hidden).split([len(ends), len(new)])
        hidden, hidden_at_sot = hidden.split([len(ends), len(new)])
        self._decoder.make_exact(first, hidden_at_sot, [no_speech])
        for active, row in zip(new, first, strict=True):
            active.no_speech_prob = float(row.softmax(dim=-1)[no_speech])
        return logits, hidden

    def _candidates(
        self, search: Search, processor: LogitsProcessor, group: Sequence[_Active], logits: Tensor, hidden: Tensor
    ) -> list[list[Candidate]]:
        """Candidates row by row for attempts of one search and processor, from their logits and decoder outputs."""
        tokens, backend = [live for active in group for live in active.live_tokens], self._decoder.backend
        processor.mask(logits, tokens, backend)
        lowered = processor.penalised_count(tokens)
        split = processor.timestamp_begin if processor.timestamps else logits.shape[1]
        self._decoder.rescore(logits, hidden, split, search.top, lowered)
        processor.penalise(logits, tokens)
        processor.prefer_timestamps(logits, backend)
        return search.candidates(logits, [active.hypotheses for active in group], backend.top_k)

    def _leave(self, leaving: Sequence[_Active]) -> None:
        """Take attempts out; the rows of the others close up."""
        self._active = [active for active in self._active if active not in leaving]
        self._state.select([row for active in self._active for row in active.rows])
        rows = count()
        for active in self._active:
            active.rows = list(islice(rows, len(active.rows)))

    def _decoded(self, active: _Active) -> DecodedWindow:
        best, tokenizer = active.attempt.search.best(active.hypotheses), self._tokenizer
        tokens = (*active.attempt.prefix, *best.tokens)
        text = [logprob for token, logprob in zip(best.tokens, best.logprobs, strict=False) if token < tokenizer.eot]
        return DecodedWindow(
            tokens=tokens,
            avg_logprob=best.logprob / (len(best.tokens) + 1),
            logprobs=best.logprobs[: len(best.tokens)],
            text_logprob=sum(text) / len(text) if text else float("-inf"),
            no_speech_prob=active.no_speech_prob,
            temperature=active.attempt.temperature,
            compression_ratio=compression_ratio(tokenizer.decode(tokens).strip()),
        )


def decode(batch: Batch, attempts: Sequence[Attempt]) -> list[DecodedWindow]:
    """Decode attempts together to their ends; results in the attempts' order."""
    batch.add(attempts)
    decoded: dict[Attempt, DecodedWindow] = {}
    while len(batch):
        decoded.update(batch.step())
    return [decoded[attempt] for attempt in attempts]


def compression_ratio(text: str) -> float:
    """Length of the text / its length compressed by zlib: above 2.4 it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _by_method(batch: Iterable[_Active]) -> Iterable[tuple[tuple[Search, LogitsProcessor], list[_Active]]]:
    groups: defaultdict[tuple[Search, LogitsProcessor], list[_Active]] = defaultdict(list)
    for active in batch:
        groups[active.attempt.search, active.attempt.processor].append(active)
    return groups.items()
