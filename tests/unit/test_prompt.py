"""What a window is told before it is decoded. Words are numbers here: " 1 2" is [1, 2]."""

from types import SimpleNamespace

import pytest

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.prompt import History, Prompt

PREV, ZERO, CONTEXT = 900, 1000, 20  # half of the context, less one for start-of-previous: 9 tokens
TOKENIZER = SimpleNamespace(sot_prev=PREV, timestamp_begin=ZERO, encode=lambda text: [int(t) for t in text.split()])


def history(**options):
    return History(TranscriptionOptions(**options), TOKENIZER, CONTEXT)


def windows(one: History, *said: list[int], temperature: float = 0.0) -> list[tuple[int, ...]]:
    """What each window sees, and the one after all that was said."""
    seen = []
    for tokens in said:
        seen.append(one.next_prompt().before)
        one.add(tokens, temperature)
    return [*seen, one.next_prompt().before]


def test_the_text_before_is_seen_as_far_as_it_fits():
    assert windows(history(), [1, 2], list(range(3, 12))) == [(), (PREV, 1, 2), (PREV, *range(3, 12))]


def test_nothing_is_seen_where_that_is_not_wanted():
    assert windows(history(condition_on_previous_text=False, initial_prompt="7"), [1], [2]) == [(PREV, 7), (), ()]


@pytest.mark.parametrize(("temperature", "seen"), [(0.5, (PREV, 1)), (0.6, ())])
def test_a_guess_is_not_shown_to_the_next_window(temperature, seen):
    assert windows(history(), [1], temperature=temperature) == [(), seen]


@pytest.mark.parametrize("prompt", [" 7 8 ", (7, 8)])
def test_the_initial_prompt_comes_first_and_is_pushed_out(prompt):
    assert windows(history(initial_prompt=prompt), [1], [1] * 8) == [(PREV, 7, 8), (PREV, 7, 8, 1), (PREV, *[1] * 9)]


def test_a_carried_prompt_stays():
    seen = windows(history(initial_prompt="7 8", carry_initial_prompt=True), list(range(20)), temperature=0.0)
    assert seen == [(PREV, 7, 8), (PREV, 7, 8, *range(13, 20))]
    assert windows(history(initial_prompt="7 8", carry_initial_prompt=True), [1], temperature=1.0)[1] == (PREV, 7, 8)


def test_a_carried_prompt_longer_than_its_room_is_cut_at_the_front():
    long = " ".join(map(str, range(30)))
    assert windows(history(initial_prompt=long, carry_initial_prompt=True), [1])[1] == (PREV, *range(21, 30))


def test_hotwords_are_seen_by_every_window_before_the_text():
    assert windows(history(hotwords="5 6"), [1]) == [(PREV, 5, 6), (PREV, 5, 6, 1)]


def test_the_prefix_is_the_first_windows_and_takes_the_hotwords_place():
    one = history(prefix="3 4", hotwords="5")
    first, second = one.next_prompt(), one.next_prompt()
    assert (first.before, first.prefix) == ((), (ZERO, 3, 4))
    assert (second.before, second.prefix) == ((PREV, 5), ())
    assert history(prefix="3 4", without_timestamps=True).next_prompt().prefix == (3, 4)


def test_prompt_and_prefix_leave_half_of_the_context():
    long = " ".join(map(str, range(30)))
    prompt = history(prefix=long, initial_prompt=long, hotwords=long).next_prompt()
    assert len(prompt.before) + len(prompt.prefix) <= CONTEXT // 2


def test_the_tokens_of_the_task_follow_the_text_before():
    one = history(prefix="3", initial_prompt="7")
    assert one.next_prompt().with_task((50, 51)) == Prompt((PREV, 7, 50, 51), (ZERO, 3))
