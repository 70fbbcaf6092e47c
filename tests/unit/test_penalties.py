"""Rules against repetition, beside transformers' own."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from tilewhisper.engine.decoding.penalties import no_repeat_ngram, repetition_penalty

VOCABULARY = 7


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[1, 2, 5, 40])
def tokens(request) -> torch.Tensor:
    return torch.randint(VOCABULARY, (4, request.param), generator=torch.Generator().manual_seed(request.param))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty(scores, tokens, penalty):
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, scores.clone())
    repetition_penalty(scores, tokens.tolist(), penalty)
    assert torch.equal(scores, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_no_repeat_ngram(scores, tokens, size):
    expected = NoRepeatNGramLogitsProcessor(size)(tokens, scores.clone())
    no_repeat_ngram(scores, tokens.tolist(), size)
    assert torch.equal(scores, expected)


def test_a_repeated_token_is_less_likely_whatever_its_sign():
    scores = torch.tensor([[2.0, -2.0, 1.0, float("-inf")]])
    repetition_penalty(scores, [[0, 1, 3, 0]], 2.0)
    assert scores.tolist() == [[1.0, -4.0, 1.0, float("-inf")]]


def test_rows_have_tokens_of_their_own_and_of_their_own_number():
    scores = torch.zeros(3, 4)
    no_repeat_ngram(scores, [[1, 2, 1], [2, 1], []], 2)
    assert [row.isinf().nonzero().flatten().tolist() for row in scores] == [[2], [], []]


def test_nothing_said_or_nothing_asked_changes_nothing(scores):
    before = scores.clone()
    repetition_penalty(scores, [[]] * 4, 1.5)
    repetition_penalty(scores, [[1]] * 4, 1.0)
    no_repeat_ngram(scores, [[]] * 4, 3)
    no_repeat_ngram(scores, [[1, 1, 1]] * 4, 0)
    assert torch.equal(scores, before)
