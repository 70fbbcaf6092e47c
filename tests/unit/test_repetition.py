"""Options against repetition give the logits of transformers' own processors."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from tilewhisper.engine.decoding.logits import LogitsProcessor, penalise_repetition
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

VOCABULARY = 7


def mask_repeated_ngrams(logits: torch.Tensor, tokens: list[list[int]], size: int) -> None:
    rules = LogitsProcessor(0, 0, VOCABULARY, (), (), False, None, no_repeat_ngram_size=size)
    rules.mask(logits, tokens, TorchBackend())


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[1, 2, 5, 40])
def tokens(request) -> torch.Tensor:
    return torch.randint(VOCABULARY, (4, request.param), generator=torch.Generator().manual_seed(request.param))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3])
def test_repetition_penalty(logits, tokens, penalty):
    expected = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())
    penalise_repetition(logits, tokens.tolist(), penalty)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_no_repeat_ngram(logits, tokens, size):
    expected = NoRepeatNGramLogitsProcessor(size)(tokens, logits.clone())
    mask_repeated_ngrams(logits, tokens.tolist(), size)
    assert torch.equal(logits, expected)


def test_a_repeated_token_is_less_likely_whatever_its_sign():
    logits = torch.tensor([[2.0, -2.0, 1.0, float("-inf")]])
    penalise_repetition(logits, [[0, 1, 3, 0]], 2.0)
    assert logits.tolist() == [[1.0, -4.0, 1.0, float("-inf")]]


def test_each_row_has_its_own_tokens():
    logits = torch.zeros(3, 4)
    mask_repeated_ngrams(logits, [[1, 2, 1], [2, 1], []], 2)
    assert [row.isinf().nonzero().flatten().tolist() for row in logits] == [[2], [], []]


def test_no_tokens_or_neutral_options_change_nothing(logits):
    before = logits.clone()
    penalise_repetition(logits, [[]] * 4, 1.5)
    penalise_repetition(logits, [[1]] * 4, 1.0)
    mask_repeated_ngrams(logits, [[]] * 4, 3)
    mask_repeated_ngrams(logits, [[1, 1, 1]] * 4, 0)
    assert torch.equal(logits, before)
