"""What accepted options mean: token ids, languages, clips and temperatures, for a checkpoint."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.checkpoint.generation_config import GenerationConfig
from tilewhisper.models.errors import LanguageError

TOKENIZER = SimpleNamespace(n_vocab=100, prompt=lambda language, task, timestamps: ())
CONFIG = GenerationConfig((7, 3, 50), (4, 99), (), 25)


def test_minus_one_stands_for_the_checkpoints_own_list():
    assert TranscriptionOptions().suppressed(TOKENIZER, CONFIG) == (3, 7, 50)
    assert TranscriptionOptions(suppress_tokens=[-1, 9, 7]).suppressed(TOKENIZER, CONFIG) == (3, 7, 9, 50)
    assert TranscriptionOptions(suppress_tokens=[9, 1]).suppressed(TOKENIZER, CONFIG) == (1, 9)


@pytest.mark.parametrize("none", [None, [], ()])
def test_no_token_need_be_suppressed(none):
    assert TranscriptionOptions(suppress_tokens=none).suppressed(TOKENIZER, CONFIG) == ()


@pytest.mark.parametrize("name", ["suppress_tokens", "initial_prompt"])
def test_a_token_id_outside_the_vocabulary_is_refused(name):
    TranscriptionOptions(**{name: [0, 99]}).check(TOKENIZER, CONFIG)
    for token in (100, 999_999, 2**70):
        with pytest.raises(OptionError, match=f"{name} must hold token ids >= 0 and <= 99, got {token}"):
            TranscriptionOptions(**{name: [1, token]}).check(TOKENIZER, CONFIG)


@pytest.mark.parametrize("language", ["auto", "AUTO", "", " "])
def test_auto_is_detection(language):
    assert TranscriptionOptions(language=language).language is None


def test_a_language_or_task_the_checkpoint_lacks_is_refused():
    def prompt(language, task, timestamps):
        raise LanguageError(f"{language} {task}")

    tokenizer = SimpleNamespace(n_vocab=100, prompt=prompt)
    with pytest.raises(LanguageError, match="de translate"):
        TranscriptionOptions("de", "translate").check(tokenizer, CONFIG)


def test_a_blank_is_suppressed_at_the_first_position_or_nowhere():
    assert TranscriptionOptions().suppressed_first(CONFIG) == (4, 99)
    assert TranscriptionOptions(suppress_blank=False).suppressed_first(CONFIG) == ()


@pytest.mark.parametrize(("seconds", "index"), [(1.0, 50), (0.0, 0), (0.5, 25), (0.58, 29), (30.0, 1500)])
def test_the_initial_timestamp_in_steps_of_20_ms(seconds, index):
    assert TranscriptionOptions(max_initial_timestamp=seconds).max_initial_timestamp_index(CONFIG) == index


@pytest.mark.parametrize("index", [25, 50, None])
def test_the_initial_timestamp_is_the_checkpoints_by_default(index):
    config = dataclasses.replace(CONFIG, max_initial_timestamp_index=index)
    assert TranscriptionOptions().max_initial_timestamp_index(config) == index
    assert TranscriptionOptions(max_initial_timestamp=0.0).max_initial_timestamp_index(config) == 0


@pytest.mark.parametrize(
    ("given", "clips"),
    [
        ("0", ((0.0, math.inf),)),
        ("", ((0.0, math.inf),)),
        ("1.5,4,6", ((1.5, 4.0), (6.0, math.inf))),
        (5.0, ((5.0, math.inf),)),
        ([1, 2], ((1.0, 2.0),)),
        ((0, 5, 3, 8), ((0.0, 5.0), (3.0, 8.0))),
        ([4, 8, 0, 3], ((4.0, 8.0), (0.0, 3.0))),
        (np.array([1, 2.5]), ((1.0, 2.5),)),
        ([{"start": 0, "end": 3}, {"start": 4, "end": 8.5}], ((0.0, 3.0), (4.0, 8.5))),
        ([], ((0.0, math.inf),)),
    ],
)
def test_clips_are_pairs_of_which_the_last_may_be_open(given, clips):
    assert TranscriptionOptions(clip_timestamps=given).clips == clips


def test_one_temperature_or_several():
    assert TranscriptionOptions(temperature=0).temperatures == (0.0,)
    assert TranscriptionOptions(temperature=[0, 0.5]).temperatures == (0.0, 0.5)


@pytest.mark.parametrize(("temperature", "most"), [(0.0, 2), (0.4, 3), ([0.0, 0.4], 3)])
def test_the_temperatures_decide_how_many_hypotheses_are_followed(temperature, most):
    assert TranscriptionOptions(temperature=temperature, beam_size=2, best_of=3).most_hypotheses == most


def test_the_vad_has_options_only_if_it_runs():
    assert TranscriptionOptions(vad_parameters={"threshold": 0.7}).vad_options is None
    assert TranscriptionOptions(vad_filter=True, vad_parameters={"threshold": 0.7}).vad_options.threshold == 0.7


def test_a_batch_has_vad_defaults_of_its_own():
    cut = TranscriptionOptions(batch_size=2, chunk_length=20, vad_parameters={"threshold": 0.7}).vad_options
    assert (cut.threshold, cut.max_speech_duration_s, cut.min_silence_duration_ms) == (0.7, 20, 160)
