"""Options are checked where they enter, and what they stand for is spelled out."""

from types import SimpleNamespace

import pytest

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.checkpoint.generation_config import GenerationConfig

TOKENIZER = SimpleNamespace(n_vocab=100)


@pytest.fixture
def facts():
    return SimpleNamespace(suppress_tokens=(7, 3, 50), begin_suppress_tokens=(4, 99))


def test_the_defaults_are_whispers():
    options = TranscriptionOptions()
    assert (options.language, options.task, options.without_timestamps) == (None, "transcribe", False)
    assert (options.suppress_blank, tuple(options.suppress_tokens)) == (True, (-1,))
    assert (options.max_initial_timestamp, options.no_speech_threshold, options.log_prob_threshold) == (1.0, 0.6, -1.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"task": "sing"}, "'sing'.*transcribe and translate"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"max_initial_timestamp": -0.5}, "max_initial_timestamp must not be negative, not -0.5"),
        ({"beam_size": 0}, "beam_size must be at least 1, not 0"),
        ({"patience": 0.0}, "patience must be above 0, not 0.0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be above 0, not nan"),
        ({"temperature": ()}, "temperature must be one number from 0 up, or several"),
        ({"temperature": [0.0, -0.2]}, "temperature must be one number from 0 up, or several"),
        ({"seed": -1}, "seed must be 0 to 9223372036854775807, not -1"),
        ({"seed": 2**63}, "seed must be 0 to"),
        ({"chunk_length": 31}, "chunk_length must be 1 to 30 seconds, not 31"),
        ({"clip_timestamps": "0,x"}, "clip_timestamps must be seconds"),
        ({"clip_timestamps": [4, 2]}, "clip_timestamps must ascend"),
        ({"vad_filter": True, "vad_parameters": {"treshold": 1}}, "vad_parameters: .*treshold.*; there are threshold,"),
    ],
)
def test_a_value_out_of_range_is_refused(wrong, words):
    with pytest.raises(OptionError, match=words):
        TranscriptionOptions(**wrong)


def test_minus_one_stands_for_the_models_own_list(generation_config):
    assert TranscriptionOptions().suppressed(TOKENIZER, generation_config) == (3, 7, 50)
    assert TranscriptionOptions(suppress_tokens=[-1, 9, 7]).suppressed(TOKENIZER, generation_config) == (3, 7, 9, 50)
    assert TranscriptionOptions(suppress_tokens=[9, 1]).suppressed(TOKENIZER, generation_config) == (1, 9)


@pytest.mark.parametrize("none", [None, [], ()])
def test_nothing_need_be_suppressed(generation_config, none):
    assert TranscriptionOptions(suppress_tokens=none).suppressed(TOKENIZER, generation_config) == ()


@pytest.mark.parametrize("token", [-2, 100])
def test_an_id_outside_the_vocabulary_is_refused(generation_config, token):
    with pytest.raises(OptionError, match=rf"suppress_tokens: {token} is no token id; they run from 0 to 99"):
        TranscriptionOptions(suppress_tokens=[-1, token]).suppressed(TOKENIZER, generation_config)
    assert TranscriptionOptions(suppress_tokens=[99]).suppressed(TOKENIZER, generation_config) == (99,)


def test_blank_is_suppressed_first_or_not_at_all(generation_config):
    assert TranscriptionOptions().suppressed_first(generation_config) == (4, 99)
    assert TranscriptionOptions(suppress_blank=False).suppressed_first(generation_config) == ()


@pytest.mark.parametrize(("seconds", "index"), [(1.0, 50), (0.0, 0), (0.5, 25), (0.58, 29), (30.0, 1500)])
def test_the_initial_timestamp_in_tokens_of_a_fiftieth_of_a_second(seconds, index):
    assert TranscriptionOptions(max_initial_timestamp=seconds).max_initial_timestamp_index == index


def test_the_facts_used_are_facts_there_are():
    assert {"suppress_tokens", "begin_suppress_tokens"} <= set(GenerationConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "clips"),
    [
        ("0", ((0.0, float("inf")),)),
        ("", ((0.0, float("inf")),)),
        ("1.5,4,6", ((1.5, 4.0), (6.0, float("inf")))),
        ([1, 2], ((1.0, 2.0),)),
    ],
)
def test_clips_are_pairs_of_which_the_last_may_be_open(given, clips):
    assert TranscriptionOptions(clip_timestamps=given).clips == clips


def test_one_temperature_or_several():
    assert TranscriptionOptions(temperature=0).temperatures == (0.0,)
    assert TranscriptionOptions(temperature=[0, 0.5]).temperatures == (0.0, 0.5)


@pytest.mark.parametrize(("temperature", "most"), [(0.0, 2), (0.4, 3), ([0.0, 0.4], 3)])
def test_as_many_texts_are_followed_as_the_temperatures_ask_for(temperature, most):
    assert TranscriptionOptions(temperature=temperature, beam_size=2, best_of=3).most_hypotheses == most


def test_the_vad_has_options_only_where_it_is_on():
    assert TranscriptionOptions(vad_parameters={"threshold": 0.7}).vad_options is None
    assert TranscriptionOptions(vad_filter=True, vad_parameters={"threshold": 0.7}).vad_options.threshold == 0.7
