"""When a window is decoded again: checks of its text, rising temperatures, full context, without previous text."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.fallback import decode_window
from tilewhisper.engine.pipeline.prompt import Prompt
from tilewhisper.engine.pipeline.quality import is_silence, needs_fallback
from tilewhisper.engine.pipeline.segmenter import WindowRequest

TASK = (31, 33)


def options(**fields) -> TranscriptionOptions:
    return TranscriptionOptions(language="en", without_timestamps=True, **fields)


def decoded(**fields) -> DecodedWindow:
    good = DecodedWindow((1,), -0.5, (-0.5,), -0.5, 0.1, 0.0, 1.5)
    return replace(good, **fields)


@pytest.mark.parametrize(
    ("fields", "thresholds", "again", "silence"),
    [
        ({}, {}, False, False),
        ({"compression_ratio": 2.5}, {}, True, False),
        ({"compression_ratio": 2.5}, {"compression_ratio_threshold": None}, False, False),
        ({"avg_logprob": -1.1}, {}, True, False),
        ({"avg_logprob": -1.1}, {"log_prob_threshold": None}, False, False),
        ({"avg_logprob": -1.1, "text_logprob": -1.2, "no_speech_prob": 0.7}, {}, False, True),
        ({"avg_logprob": -0.7, "text_logprob": -1.4, "no_speech_prob": 0.7}, {}, False, True),
        ({"text_logprob": -1.4, "no_speech_prob": 0.7, "compression_ratio": 2.5}, {}, False, True),
        ({"avg_logprob": -1.1, "text_logprob": -0.9, "no_speech_prob": 0.7}, {}, False, True),
        ({"avg_logprob": -0.9, "text_logprob": -0.9, "no_speech_prob": 0.7}, {}, False, False),
        (
            {"avg_logprob": -1.1, "text_logprob": -1.2, "no_speech_prob": 0.7},
            {"no_speech_threshold": None},
            True,
            False,
        ),
        ({"no_speech_prob": 0.7}, {"log_prob_threshold": None}, False, True),
    ],
)
def test_which_results_need_a_fallback_and_which_are_silence(fields, thresholds, again, silence):
    assert needs_fallback(decoded(**fields), options(**thresholds)) is again
    assert is_silence(decoded(**fields), options(**thresholds)) is silence


class FakeSession:
    """Records the attempts that are made; a window is the number of times it was encoded."""

    def __init__(self, approximate: bool, **fields) -> None:
        self.options, self._approximate = options(**fields), approximate
        self.encoded = 0
        self.supported, self.doubted = True, []

    def encode(self, request):
        self.encoded += 1
        return SimpleNamespace(number=self.encoded, approximate=self._approximate)

    def reencode(self, request):
        self._approximate = False
        return self.encode(request)

    def attempt(self, window, prompt, temperature):
        return window.number, (*prompt.before, *prompt.prefix), temperature

    def language_of(self, window):
        return "en"

    def task_prompt(self, language):
        return TASK

    def supports(self, window, prompt, tokens):
        self.doubted.append((prompt.before, tokens))
        return self.supported

    def align(self, *_): ...


def attempts_at(session, answer, before=(), prefix=()):
    """All attempts at a window and its decoded window; `answer` maps an attempt to its decoded window."""
    made, result = result_of(session, answer, before, prefix)
    return made, result.decoded


def result_of(session, answer, before=(), prefix=()):
    steps, made, reply = decode_window(session, WindowRequest(0, 3000, Prompt(before, prefix))), [], None
    with pytest.raises(StopIteration) as finished:
        while True:
            made.append(steps.send(reply))
            reply = answer(*made[-1])
    return made, finished.value.value


@pytest.mark.parametrize(("passes", "tried"), [(0.0, [0.0]), (0.2, [0.0, 0.2]), (9.0, [0.0, 0.2, 0.3])])
def test_a_window_gets_the_first_temperature_that_passes(passes, tried):
    session = FakeSession(approximate=False, temperature=(0.0, 0.2, 0.3))
    made, result = attempts_at(
        session, lambda _, __, t: decoded(temperature=t, avg_logprob=-0.5 if t >= passes else -2.0)
    )
    assert made == [(1, TASK, temperature) for temperature in tried]
    assert result.temperature == tried[-1]


def test_a_failed_approximate_window_is_reencoded_and_starts_again():
    session = FakeSession(approximate=True, temperature=(0.0, 0.2))
    made, result = attempts_at(session, lambda window, _, t: decoded(temperature=t, avg_logprob=-2.0 / window**2))
    assert made == [(1, TASK, 0.0), (2, TASK, 0.0)]
    assert result.avg_logprob == -0.5


@pytest.mark.parametrize("prefix", [(), (7,)])
def test_silence_is_judged_without_the_text_before(prefix):
    alone = (*TASK, *prefix)
    session = FakeSession(approximate=False)
    made, result = attempts_at(
        session,
        lambda _, prompt, __: decoded(no_speech_prob=0.9, text_logprob=-3.0 if prompt == alone else -0.5),
        before=(1, 2),
        prefix=prefix,
    )
    assert made == [(1, (1, 2, *alone), 0.0), (1, alone, 0.0)]
    assert result.text_logprob == -3.0


@pytest.mark.parametrize("supported", [True, False])
def test_text_where_no_speech_is_probable_needs_evidence_in_the_audio(supported):
    session = FakeSession(approximate=False)
    session.supported = supported
    _, result = result_of(session, lambda *_: decoded(no_speech_prob=0.7), before=(1, 2))
    assert session.doubted == [((1, 2, *TASK), (1,))]
    assert result.supported is supported


@pytest.mark.parametrize(
    ("fields", "thresholds"),
    [
        ({"no_speech_prob": 0.5}, {}),
        ({"no_speech_prob": 0.7, "text_logprob": -1.4}, {}),  # silence already
        ({"no_speech_prob": 0.7}, {"no_speech_threshold": None}),
    ],
)
def test_other_text_costs_no_comparison(fields, thresholds):
    session = FakeSession(approximate=False, **thresholds)
    _, result = result_of(session, lambda *_: decoded(**fields))
    assert session.doubted == [] and result.supported
