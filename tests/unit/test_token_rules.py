"""Whisper's rules on a vocabulary small enough to read: text 0..9, end 10, no-timestamps 11, timestamps 12..31."""

import pytest
import torch

from tilewhisper.engine.decoding.token_rules import TokenRules
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

EOT, NO_TIMESTAMPS, BEGIN, SIZE = 10, 11, 12, 32
STAMPS = set(range(BEGIN, SIZE))
TEXT = set(range(EOT))


def rules(*, timestamps=True, suppress=(), suppress_first=(), limit=None) -> TokenRules:
    return TokenRules(EOT, NO_TIMESTAMPS, BEGIN, suppress, suppress_first, timestamps, limit)


def apply(given: TokenRules, scores: torch.Tensor, tokens: list[list[int]]) -> None:
    given.forbid(scores, tokens)
    given.prefer_timestamps(scores, TorchBackend().top_k)


def allowed(given: TokenRules, *tokens: int, logits: torch.Tensor | None = None) -> set[int]:
    scores = torch.zeros(1, SIZE) if logits is None else logits.clone()[None]
    # Text and the end are likelier than all timestamps together, unless a test says otherwise.
    if logits is None:
        scores[:, : EOT + 1] = 10.0
    apply(given, scores, [list(tokens)])
    return set(torch.isfinite(scores[0]).nonzero().flatten().tolist())


def test_suppressed_tokens_never_come():
    assert not allowed(rules(timestamps=False, suppress=(3, 4)), 5) & {3, 4}


def test_blank_and_end_do_not_come_first_but_later():
    given = rules(timestamps=False, suppress_first=(2, EOT))
    assert not allowed(given) & {2, EOT}
    assert allowed(given, 5) >= {2, EOT}


def test_the_first_token_is_a_timestamp_up_to_the_limit():
    assert allowed(rules()) == STAMPS
    assert allowed(rules(limit=5)) == set(range(BEGIN, BEGIN + 6))
    assert allowed(rules(limit=0)) == {BEGIN}


def test_without_timestamps_the_first_token_may_be_text():
    assert allowed(rules(timestamps=False)) >= TEXT


def test_no_timestamps_is_the_prompts_and_never_the_models():
    assert NO_TIMESTAMPS not in allowed(rules(), BEGIN, 5)


def test_text_follows_the_opening_timestamp():
    assert allowed(rules(), BEGIN) == TEXT | {EOT}


def test_after_text_a_timestamp_lies_later_than_the_last_one():
    assert allowed(rules(), BEGIN + 2, 5) & STAMPS == set(range(BEGIN + 3, SIZE))


def test_a_closing_timestamp_is_followed_by_one_that_opens_or_by_the_end():
    assert allowed(rules(), BEGIN, 5, BEGIN + 4) == {EOT, *range(BEGIN + 4, SIZE)}


def test_a_pair_of_timestamps_is_followed_by_text():
    assert allowed(rules(), BEGIN, 5, BEGIN + 4, BEGIN + 4) == TEXT | {EOT}


def test_a_timestamp_must_come_where_all_together_outweigh_the_likeliest_text():
    logits = torch.zeros(SIZE)
    logits[5] = 2.0  # twenty timestamps at 0 have log-sum-exp 3.0, minus those already past
    assert allowed(rules(), BEGIN, 5, logits=logits) == set(range(BEGIN + 1, SIZE))
    logits[5] = 4.0
    assert 5 in allowed(rules(), BEGIN, 5, logits=logits)


def test_rows_of_a_batch_are_ruled_each_by_its_own_past():
    scores = torch.zeros(2, SIZE)
    scores[:, :EOT] = 10.0
    apply(rules(), scores, [[BEGIN], [BEGIN, 5]])
    assert torch.isinf(scores[0, BEGIN:]).all()
    assert not torch.isinf(scores[1, BEGIN + 1 :]).any()


@pytest.mark.parametrize("past", [(), (BEGIN,), (BEGIN, 5), (BEGIN, 5, BEGIN + 4), (BEGIN, 5, SIZE - 1)])
def test_something_is_always_allowed(past):
    assert allowed(rules(limit=3, suppress=(1,), suppress_first=(2, EOT)), *past)
