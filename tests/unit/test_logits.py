"""Whisper's token rules on a small vocabulary: text 0..9, end 10, no-timestamps 11, timestamps 12..31."""

import pytest
import torch

from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

EOT, NO_TIMETIMESTAMPS, BEGIN, SIZE = 10, 11, 12, 32
TIMESTAMPS = set(range(BEGIN, SIZE))
TEXT = set(range(EOT))


def rules(*, timestamps=True, suppress=(), suppress_first=(), limit=None) -> LogitsProcessor:
    return LogitsProcessor(EOT, NO_TIMETIMESTAMPS, BEGIN, suppress, suppress_first, timestamps, limit)


def apply(given: LogitsProcessor, rows: torch.Tensor, tokens: list[list[int]]) -> None:
    given.mask(rows, tokens, TorchBackend())
    given.prefer_timestamps(rows, TorchBackend())


def allowed(given: LogitsProcessor, *tokens: int, logits: torch.Tensor | None = None) -> set[int]:
    rows = torch.zeros(1, SIZE) if logits is None else logits.clone()[None]
    # Text and the end are more probable than all timestamps together, unless a test says otherwise.
    if logits is None:
        rows[:, : EOT + 1] = 10.0
    apply(given, rows, [list(tokens)])
    return set(torch.isfinite(rows[0]).nonzero().flatten().tolist())


def test_suppressed_tokens_are_masked():
    assert not allowed(rules(timestamps=False, suppress=(3, 4)), 5) & {3, 4}


def test_blank_and_end_are_masked_at_the_first_position_only():
    given = rules(timestamps=False, suppress_first=(2, EOT))
    assert not allowed(given) & {2, EOT}
    assert allowed(given, 5) >= {2, EOT}


def test_the_first_token_is_a_timestamp_up_to_the_limit():
    assert allowed(rules()) == TIMESTAMPS
    assert allowed(rules(limit=5)) == set(range(BEGIN, BEGIN + 6))
    assert allowed(rules(limit=0)) == {BEGIN}


def test_without_timestamps_the_first_token_may_be_text():
    assert allowed(rules(timestamps=False)) >= TEXT


def test_the_no_timestamps_token_is_masked():
    assert NO_TIMETIMESTAMPS not in allowed(rules(), BEGIN, 5)


def test_text_follows_the_opening_timestamp():
    assert allowed(rules(), BEGIN) == TEXT | {EOT}


def test_after_text_a_timestamp_lies_later_than_the_last_one():
    assert allowed(rules(), BEGIN + 2, 5) & TIMESTAMPS == set(range(BEGIN + 3, SIZE))


def test_a_closing_timestamp_is_followed_by_one_that_opens_or_by_the_end():
    assert allowed(rules(), BEGIN, 5, BEGIN + 4) == {EOT, *range(BEGIN + 4, SIZE)}


def test_a_pair_of_timestamps_is_followed_by_text():
    assert allowed(rules(), BEGIN, 5, BEGIN + 4, BEGIN + 4) == TEXT | {EOT}


def test_text_is_masked_where_all_timestamps_together_are_more_probable():
    logits = torch.zeros(SIZE)
    logits[5] = 2.0  # twenty timestamps at 0 have log-sum-exp 3.0, minus those already past
    assert allowed(rules(), BEGIN, 5, logits=logits) == set(range(BEGIN + 1, SIZE))
    logits[5] = 4.0
    assert 5 in allowed(rules(), BEGIN, 5, logits=logits)


def test_each_row_follows_its_own_tokens():
    rows = torch.zeros(2, SIZE)
    rows[:, :EOT] = 10.0
    apply(rules(), rows, [[BEGIN], [BEGIN, 5]])
    assert torch.isinf(rows[0, BEGIN:]).all()
    assert not torch.isinf(rows[1, BEGIN + 1 :]).any()


@pytest.mark.parametrize("past", [(), (BEGIN,), (BEGIN, 5), (BEGIN, 5, BEGIN + 4), (BEGIN, 5, SIZE - 1)])
def test_something_is_always_allowed(past):
    assert allowed(rules(limit=3, suppress=(1,), suppress_first=(2, EOT)), *past)
