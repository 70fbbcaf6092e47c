"""Beam search and sampling over a decoder that is a table of logits; the best text is found by trying all."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch

from tilewhisper.engine.decoding.batch import Attempt, Batch, DecodedWindow, decode
from tilewhisper.engine.decoding.beam import BeamSearch
from tilewhisper.engine.decoding.hypothesis import Candidate, Hypotheses, Hypothesis
from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.engine.decoding.sampling import Sampling
from tilewhisper.engine.decoding.search import search_at
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

WORDS, EOT, SOT, NO_SPEECH, NO_TIMESTAMPS, BEGIN, VOCABULARY = 3, 30, 31, 32, 33, 34, 40
PROMPT = (SOT, NO_TIMESTAMPS)
RULES = LogitsProcessor(
    eot=EOT,
    no_timestamps=NO_TIMESTAMPS,
    timestamp_begin=BEGIN,
    suppress=(*range(WORDS, EOT), *range(EOT + 1, VOCABULARY)),
    suppress_first=(),
    timestamps=False,
    max_initial_timestamp_index=None,
)


class Words:
    """As much of a tokenizer as decoding asks for."""

    eot, sot, no_speech = EOT, SOT, NO_SPEECH

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


class TableState:
    def __init__(self) -> None:
        self.rows: list[tuple[int, tuple[int, ...]]] = []

    @property
    def lengths(self) -> list[int]:
        return [len(tokens) for _, tokens in self.rows]

    def add(self, windows: Sequence[int]) -> None:
        self.rows += [(window, ()) for window in windows]

    def select(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]


class TableDecoder:
    """A window is a number; it and all tokens before give the scores of the next. An output is a row's history."""

    def __init__(self, text_context: int = 12) -> None:
        self.text_context = text_context
        self.exact: list[int] = []
        self.most_rows = self.tokens_read = 0
        self._histories: list[tuple[int, tuple[int, ...]]] = []

    def table(self, window: int, tokens: tuple[int, ...]) -> torch.Tensor:
        """Scores that favour repetition a little, after this history."""
        generator = torch.Generator().manual_seed(hash((window, tokens)) % 2**32)
        scores = 2 * torch.randn(VOCABULARY, generator=generator)
        scores[NO_SPEECH] = 5.0 if tokens[-1] == SOT else -5.0
        return scores

    def start(self) -> TableState:
        return TableState()

    def step(self, tokens: Sequence[Sequence[int]], state: TableState) -> torch.Tensor:
        assert len(tokens) == len(state.rows)
        self.most_rows = max(self.most_rows, len(tokens))
        self.tokens_read += sum(len(some) for some, length in zip(tokens, state.lengths, strict=True) if length == 0)
        return torch.cat([self._append(state, row, token) for row, some in enumerate(tokens) for token in some])

    def _append(self, state: TableState, row: int, token: int) -> torch.Tensor:
        window, tokens = state.rows[row]
        state.rows[row] = window, (*tokens, token)
        assert len(tokens) < self.text_context
        self._histories.append(state.rows[row])
        return torch.tensor([[len(self._histories) - 1.0]])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._tables(hidden)

    def rescore(self, logits: torch.Tensor, hidden: torch.Tensor, split: int, top: int, lowered: int) -> None:
        self.exact.append(top + lowered)

    def make_exact(self, logits: torch.Tensor, hidden: torch.Tensor, tokens: Sequence[int]) -> None:
        logits[:, tokens] = self._tables(hidden)[:, tokens]

    def _tables(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.table(*self._histories[int(place)]) for place in hidden.flatten()])

    backend = TorchBackend()


def options(**fields) -> TranscriptionOptions:
    return TranscriptionOptions(language="en", without_timestamps=True, **fields)


def batch(decoder: TableDecoder | None = None) -> Batch:
    return Batch(decoder or TableDecoder(), Words())


def attempt(window: int, prompt: tuple[int, ...], temperature: float, chosen: TranscriptionOptions) -> Attempt:
    processor = processors[chosen.repetition_penalty, chosen.no_repeat_ngram_size]
    search = search_at(temperature, chosen, EOT)
    return Attempt(window, prompt, temperature, search, processor, max_new_tokens=chosen.max_new_tokens)


class Processors(dict):
    """One processor for equal options, as `Runtime` has."""

    def __missing__(self, key):
        self[key] = replace(RULES, repetition_penalty=key[0], no_repeat_ngram_size=key[1])
        return self[key]


processors = Processors()


def run(windows, chosen, temperature=0.0, prompts=None, decoder=None) -> list[DecodedWindow]:
    prompts = prompts or [PROMPT] * len(windows)
    attempts = [attempt(window, prompt, temperature, chosen) for window, prompt in zip(windows, prompts, strict=True)]
    return decode(batch(decoder), attempts)


def logprob(window: int, prompt: tuple[int, ...], tokens: Sequence[int]) -> list[float]:
    """Of each token, by the table alone."""
    allowed = [*range(WORDS), EOT]
    found = []
    for i, token in enumerate(tokens):
        scores = TableDecoder().table(window, (*prompt, *tokens[:i]))[allowed].log_softmax(0)
        found.append(float(scores[allowed.index(token)]))
    return found


def every(most: int):
    """All that can be said in `most` tokens: with the end, or without it where all were used up."""
    for length in range(most):
        for words in product(range(WORDS), repeat=length):
            yield (*words, EOT)
    yield from product(range(WORDS), repeat=most)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("window", range(6))
def test_beams_enough_for_all_find_the_best_of_all(window, length_penalty):
    def rank(said: tuple[int, ...]) -> float:
        return sum(logprob(window, PROMPT, said)) / max(1, len([t for t in said if t != EOT])) ** length_penalty

    best = max(every(3), key=rank)
    (found,) = run([window], options(beam_size=27, max_new_tokens=3, length_penalty=length_penalty))
    assert found.tokens == tuple(token for token in best if token != EOT)
    assert found.avg_logprob == pytest.approx(sum(logprob(window, PROMPT, best)) / (len(found.tokens) + 1), abs=1e-5)


def test_greedy_takes_the_likeliest_each_step():
    for window in range(20):
        said: list[int] = []
        while len(said) < 6 and EOT not in said:
            said.append(max([*range(WORDS), EOT], key=lambda token: logprob(window, PROMPT, [*said, token])[-1]))
        (found,) = run([window], options(beam_size=1, max_new_tokens=6))
        assert found.tokens == tuple(token for token in said if token != EOT)


@pytest.mark.parametrize(("size", "temperature"), [(1, 0.0), (3, 0.0), (3, 0.8)])
def test_windows_together_give_what_each_gives_alone(size, temperature):
    """With prompts of different lengths, leaving the batch one after the other."""
    chosen = options(beam_size=size, best_of=size, seed=3)
    windows, prompts = range(8), [(1,) * (i % 3) + PROMPT for i in range(8)]
    alone = [run([window], chosen, temperature, [prompt])[0] for window, prompt in zip(windows, prompts, strict=True)]
    assert run(windows, chosen, temperature, prompts) == alone
    assert len({len(one.tokens) for one in alone}) > 2
    for window, prompt, one in zip(windows, prompts, alone, strict=True):
        if not one.tokens:
            assert one.text_logprob == -math.inf
            continue
        full = len(one.tokens) == min(6, 12 - len(prompt))
        exact = logprob(window, prompt, one.tokens if full else (*one.tokens, EOT))
        assert full or one.avg_logprob == pytest.approx(sum(exact) / (len(one.tokens) + 1), abs=1e-5)
        assert one.text_logprob == pytest.approx(sum(exact[: len(one.tokens)]) / len(one.tokens), abs=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_windows_that_come_later_and_at_other_temperatures_change_nothing(size):
    chosen = options(beam_size=size, best_of=size, seed=3)
    attempts = [attempt(i, (1,) * (i % 3) + PROMPT, (0.0, 0.5, 0.8)[i % 3], chosen) for i in range(12)]
    alone = [decode(batch(), [one])[0] for one in attempts]
    decoder, found, waiting = TableDecoder(), {}, list(attempts)
    together = batch(decoder)
    for number in (3, 0, 2, 1, 0, 0, 6):
        together.add([waiting.pop(0) for _ in range(number)])
        found.update(together.step())
    while len(together):
        found.update(together.step())
    assert [found[one] for one in attempts] == alone
    assert decoder.most_rows > 3 * size and together.step() == []


def test_what_part_of_a_step_is_prompts_goes_by_tokens():
    chosen, together = options(beam_size=1), batch()
    assert together.prompt_share == 0
    together.add([attempt(0, PROMPT, 0.0, chosen)])
    assert together.prompt_share == 1
    together.step()
    assert len(together) == 1 and together.prompt_share == 0
    together.add([attempt(1, (1, *PROMPT), 0.0, chosen)])
    read = len(PROMPT) + 1
    assert together.prompt_share == read / (read + 1)


def test_a_prompt_is_read_once_and_gives_the_no_speech_probability_at_its_start_of_transcript():
    class InFewBits(TableDecoder):
        def logits(self, hidden):
            logits = super().logits(hidden)
            logits[:, NO_SPEECH] -= 1
            return logits

    decoder = InFewBits()
    prompt = (1, 2, 1, SOT, NO_TIMESTAMPS, 2)
    (found,) = run([0], options(beam_size=3), 0.0, [prompt], decoder)
    assert decoder.tokens_read == len(prompt)
    assert decoder.most_rows == 3
    at_sot = TableDecoder().table(0, (1, 2, 1, SOT)).softmax(0)
    assert found.no_speech_prob == pytest.approx(float(at_sot[NO_SPEECH]))


@pytest.mark.parametrize(("size", "temperature"), [(1, 0.0), (3, 0.0), (3, 0.8)])
def test_a_window_begins_with_its_prefix_and_goes_on_as_after_a_prompt(size, temperature):
    chosen, prefix = options(beam_size=size, best_of=size), (2, 1)
    (prompted,) = run([0], chosen, temperature, [(*PROMPT, *prefix)])
    (found,) = decode(batch(), [replace(attempt(0, PROMPT, temperature, chosen), prefix=prefix)])
    assert found.tokens == (*prefix, *prompted.tokens)
    assert (found.avg_logprob, found.text_logprob) == (prompted.avg_logprob, prompted.text_logprob)
    with pytest.raises(IndexError, match="at most 12 tokens, got 14"):
        batch().add([replace(attempt(0, PROMPT, temperature, chosen), prefix=prefix * 6)])


def test_a_prefix_counts_as_the_windows_text_for_the_rules():
    first, *_ = run([0], options(beam_size=1))
    rules = replace(RULES, suppress_first=first.tokens[:1])
    free = replace(attempt(0, PROMPT[:1], 0.0, options(beam_size=1)), processor=rules, prefix=PROMPT[1:])
    assert decode(batch(), [free])[0].tokens[1:] == first.tokens


@pytest.mark.parametrize(("context", "limit", "most"), [(20, 4, 4), (20, None, 10), (8, None, 4), (6, 9, 4), (2, 9, 1)])
def test_tokens_end_with_the_budget_or_the_text_context(context, limit, most):
    """The last token of a full context is not read any more, so that a prompt that fills it still gives one."""

    class NeverEnds(TableDecoder):
        def table(self, window, tokens):
            scores = super().table(window, tokens)
            scores[EOT] = -100
            return scores

    for size, temperature in ((1, 0.0), (2, 0.0), (2, 1.0)):
        chosen = options(beam_size=size, best_of=size, max_new_tokens=limit)
        (found,) = run([0], chosen, temperature, decoder=NeverEnds(context))
        assert len(found.tokens) == most


def beams(size: int, patience: float = 1.0, length_penalty: float = 1.0) -> BeamSearch:
    return BeamSearch(EOT, size, length_penalty, patience)


def offered(**tokens: float) -> list[Candidate]:
    """e for the end, a, b, c for words."""
    return [Candidate(EOT if name == "e" else "abc".index(name), score) for name, score in tokens.items()]


def test_beams_go_on_with_the_likeliest_sums_and_finish_those_that_end_before():
    search, window = beams(2), Hypotheses(9)
    assert search.advance(window, [offered(a=-0.5, b=-1.0, e=-3.0)]) == [0, 0]
    assert [one.tokens for one in window.live] == [(0,), (1,)] and not window.finished
    sources = search.advance(window, [offered(a=-2.0, e=-3.0, b=-4.0), offered(c=-0.1, e=-1.0, a=-5.0)])
    assert sources == [1, 0]
    assert [one.tokens for one in window.live] == [(1, 2), (0, 0)]
    assert [(one.tokens, one.logprob) for one in window.finished] == [((1,), -2.0)]
    assert not window.complete


@pytest.mark.parametrize(("patience", "ends"), [(0.1, 1), (0.5, 1), (1.0, 2), (1.6, 3), (1.8, 4), (2.0, 4)])
def test_patience_says_how_many_finished_end_a_search(patience, ends):
    search, window = beams(2, patience), Hypotheses(99)
    for step in range(1, 9):
        search.advance(window, [offered(e=-0.1, a=-1.0, b=-2.0), *[offered(a=-5.0, b=-6.0, c=-7.0)] * (step > 1)])
        if window.complete:
            break
    assert len(window.finished) == step == ends


def test_no_more_finish_than_are_chosen():
    """The likelier ones, where several end at one step."""
    search, window = beams(2), Hypotheses(9)
    search.advance(window, [offered(e=-0.1, a=-1.0, b=-2.0)])
    search.advance(window, [offered(e=-0.2, a=-1.0, b=-9.0), offered(e=-0.3, a=-9.0, b=-9.0)])
    assert [one.tokens for one in window.finished] == [(), (0,)]
    assert window.complete


@pytest.mark.parametrize("patience", [0.1, 1.0, 3.0])
def test_a_single_beam_stops_at_its_first_end(patience):
    search, window = beams(1, patience), Hypotheses(9)
    assert search.advance(window, [offered(a=-0.1)]) == [0] and not window.complete
    assert search.advance(window, [offered(e=-0.1)]) == [] and window.complete
    assert search.best(window).tokens == (0,)


def test_unfinished_hypotheses_make_up_the_number():
    """Where patience ends a search early they are compared too, as openai-whisper does."""
    window = Hypotheses(0)
    window.finished = [Hypothesis((1,), (-1.0, -1.0))]
    window.live = [Hypothesis((1, 1), (-4.0, -4.0)), Hypothesis((2, 2), (-0.5, -0.5))]
    assert beams(1).best(window).tokens == (1,)
    assert beams(2).best(window).tokens == (2, 2)


def test_a_length_penalty_of_0_prefers_the_short():
    window = Hypotheses(0, live=[])
    window.finished = [Hypothesis((1,), (-1.0, -0.1)), Hypothesis((1, 2, 1), (-0.5, -0.5, -0.5, -0.1))]
    assert beams(2, length_penalty=1.0).best(window).tokens == (1, 2, 1)
    assert beams(2, length_penalty=0.0).best(window).tokens == (1,)


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_draws_follow_the_probabilities_at_their_temperature(temperature):
    logits = torch.tensor([[1.0, -math.inf, 0.0, 2.0, -math.inf, -1.0]])
    search = Sampling(EOT, 20000, 1.0, temperature, seed=5)
    (row,) = search.candidates(logits, [search.start(9)], TableDecoder.backend.top_k)
    drawn = Counter(one.token for one in row)
    for token, expected in enumerate((logits[0] / temperature).softmax(0).tolist()):
        assert drawn[token] / 20000 == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20000))
    plainly = logits[0].log_softmax(0).tolist()
    assert all(one.logprob == pytest.approx(plainly[one.token]) for one in row)


def test_what_may_not_come_is_never_drawn(monkeypatch):
    """Not by the smallest draw there is either; and where nothing may come, the hypothesis ends as it is."""
    search = Sampling(EOT, 2, 1.0, temperature=1.0, seed=0)
    monkeypatch.setattr("random.Random.random", lambda generator: 0.0)
    ((one, _),) = search.candidates(
        torch.tensor([[-math.inf, 0.0, 0.0]]), [search.start(9)], TableDecoder.backend.top_k
    )
    assert (one.token, one.logprob) == (1, pytest.approx(math.log(0.5)))

    window = search.start(9)
    window.live = [Hypothesis((1,), (-0.5,))]
    nothing = search.candidates(torch.full((1, 3), -math.inf), [window], TableDecoder.backend.top_k)
    assert search.advance(window, nothing) == []
    assert (window.finished, window.complete) == ([Hypothesis((1,), (-0.5,))], True)


def test_a_seed_gives_one_text_and_the_best_of_more_samples_is_better():
    windows = range(12)
    once = run(windows, options(best_of=3, seed=7), 1.0)
    assert run(windows, options(best_of=3, seed=7), 1.0) == once
    assert run(windows, options(best_of=3, seed=8), 1.0) != once

    def quality(best_of: int) -> float:
        found = run(windows, options(best_of=best_of, length_penalty=1.0), 1.0)
        return sum(one.avg_logprob for one in found)

    assert quality(1) < quality(8) < quality(64)


@pytest.mark.parametrize(("size", "temperature"), [(1, 0.0), (2, 0.0), (2, 0.7)])
def test_penalties_against_repetition_apply_at_each_step(size, temperature):
    chosen = options(beam_size=size, best_of=size, max_new_tokens=6)
    plainly = run(range(20), chosen, temperature)
    assert any(len(set(one.tokens)) < len(one.tokens) for one in plainly)
    for one in run(range(20), replace(chosen, no_repeat_ngram_size=1), temperature):
        assert len(set(one.tokens)) == len(one.tokens)
    decoder = TableDecoder()
    punished = run(range(20), replace(chosen, repetition_penalty=30.0), temperature, decoder=decoder)
    repeats = [sum(len(one.tokens) - len(set(one.tokens)) for one in found) for found in (plainly, punished)]
    assert repeats[1] < repeats[0]
    keep = 1 if size == 1 or temperature else 3
    assert decoder.exact[:3] == [keep, keep + 1, keep + 2]
