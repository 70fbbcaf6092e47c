"""The option records: what they accept and refuse, and what is derived from their fields."""

import copy
import dataclasses
import inspect
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper import BatchedInferencePipeline, WhisperModel
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import MAX_BATCH_SIZE, TranscriptionOptions, check_batch_size
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.option_fields import Range, option_fields
from tilewhisper.models.option_signature import takes_options

FIELDS = option_fields(TranscriptionOptions)


def test_the_defaults_are_those_of_whisper():
    options = TranscriptionOptions()
    assert (options.language, options.task, options.without_timestamps) == (None, "transcribe", False)
    assert (options.suppress_blank, options.suppress_tokens) == (True, (-1,))
    assert (options.no_speech_threshold, options.log_prob_threshold) == (0.6, -1.0)


def test_names_order_and_defaults_are_those_of_faster_whisper():
    theirs = pytest.importorskip("faster_whisper", exc_type=ImportError).WhisperModel.transcribe
    expected = {
        name: list(one.default) if name == "temperature" else one.default
        for name, one in inspect.signature(theirs).parameters.items()
        if name not in ("self", "audio")
    }
    positional = {name: field.default for name, field in FIELDS.items() if not field.keyword_only}
    positional |= {"temperature": list(positional["temperature"]), "suppress_tokens": [-1]}
    assert list(positional) == list(expected)
    assert positional | {"max_initial_timestamp": 1.0} == expected  # ours is the checkpoint's


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "sing"}, "task must be transcribe or translate, got 'sing'"),
        ({"language": 7}, "language must be a language's code or English name, or auto, or None, got 7"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1 and <= 448, or None, got 0"),
        ({"max_initial_timestamp": -0.5}, "max_initial_timestamp must be >= 0 and <= 30, or None, got -0.5"),
        ({"beam_size": 0}, "beam_size must be >= 1 and <= 64, or None, got 0"),
        ({"beam_size": 100_000}, "beam_size must be >= 1 and <= 64, or None, got 100000"),
        ({"beam_size": "5"}, "beam_size must be an integer >= 1 and <= 64, or None, got '5'"),
        ({"beam_size": True}, "beam_size must be an integer >= 1 and <= 64, or None, got True"),
        ({"beam_size": 5.0}, "beam_size must be an integer >= 1 and <= 64, or None, got 5.0"),
        ({"patience": 0.0}, "patience must be > 0 and <= 448, or None, got 0.0"),
        ({"patience": "1"}, "patience must be a number > 0 and <= 448, or None, got '1'"),
        ({"repetition_penalty": math.nan}, "repetition_penalty must be >= 0.01 and <= 100, got nan"),
        ({"no_speech_threshold": math.inf}, "no_speech_threshold must be >= 0 and <= 1, or None, got inf"),
        ({"temperature": ()}, r"temperature must be 0 or a number >= 0.01 and <= 10, .*, got \(\)"),
        ({"temperature": [0.0, -0.2]}, r"temperature must be 0 or a number .*, got \[0.0, -0.2\]"),
        ({"temperature": "0.2"}, "temperature must be 0 or a number .*, got '0.2'"),
        ({"seed": -1}, "seed must be >= 0 and <= 9223372036854775807, got -1"),
        ({"seed": 2**63}, "seed must be >= 0 and <= "),
        ({"chunk_length": 0}, "chunk_length must be >= 1 and <= 30, or None, got 0"),
        ({"chunk_length": 31}, "chunk_length must be >= 1 and <= 30, or None, got 31"),
        ({"batch_size": -3}, "batch_size must be >= 1 and <= 256, or None, got -3"),
        ({"word_timestamps": 1}, "word_timestamps must be True or False, got 1"),
        ({"hotwords": 3}, "hotwords must be text, or None, got 3"),
        ({"initial_prompt": [-1]}, r"initial_prompt must be text or token ids >= 0, or None, got \[-1\]"),
        ({"initial_prompt": b"text"}, "initial_prompt must be text or token ids >= 0, or None, got b'text'"),
        ({"suppress_tokens": "x"}, "suppress_tokens must be token ids >= 0, or -1 for .*, or None, got 'x'"),
        ({"suppress_tokens": [-2]}, r"suppress_tokens must be token ids >= 0, or -1 for .*, or None, got \[-2\]"),
        ({"clip_timestamps": "0,x"}, "clip_timestamps must be seconds >= 0: start,end.*, got '0,x'"),
        (
            {"clip_timestamps": [4, 2]},
            r"clip_timestamps must be seconds >= 0: .* no end before its start.*, got \[4, 2\]",
        ),
        ({"clip_timestamps": -5.0}, r"clip_timestamps must be seconds >= 0: .*, got -5\.0"),
        (
            {"clip_timestamps": [{"start": 1}]},
            r"clip_timestamps must be .* a list of {\"start\": …, \"end\": …}, got .*",
        ),
        ({"clip_timestamps": {"start": 1, "end": 2}}, "clip_timestamps must be seconds >= 0: .*, got {.*"),
        ({"audio_context": "sparse:0"}, "audio_context: .*'sparse:0'"),
        ({"vad_parameters": {"treshold": 1}}, "vad_parameters: unknown option 'treshold'; did you mean threshold"),
        ({"vad_parameters": {"threshold": 7}}, "vad_parameters: threshold must be >= 0 and <= 1, got 7"),
        ({"vad_parameters": VadOptions(speech_pad_ms=-1)}, "vad_parameters: speech_pad_ms must be >= 0, got -1"),
        ({"vad_parameters": [1]}, r"vad_parameters must be a mapping .*, or None, got \[1\]"),
    ],
)
def test_the_error_names_the_option_the_allowed_values_and_the_value(wrong, message):
    with pytest.raises(OptionError, match=f"^{message}"):
        TranscriptionOptions(**wrong)


ALLOWED_TYPES = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**5000),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.complex_numbers(),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(object),
)
RECORDS = [(record, name) for record in (TranscriptionOptions, SubtitleOptions) for name in option_fields(record)]


@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_any_value_is_accepted_or_refused_with_the_options_name(value):
    for record, name in RECORDS:
        try:
            options = record(**{name: value})
        except OptionError as e:
            assert str(e).startswith((f"{name} must be ", f"{name}: "))
            assert len(str(e)) < 400
        else:
            assert_well_formed(option_fields(record)[name], value)
            normal = getattr(options, name)
            assert record(**{name: normal}) == options, "the normal form is accepted and stays"


@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_any_value_of_a_vad_option_is_accepted_or_refused_with_its_name(value):
    for name, field in option_fields(VadOptions).items():
        for parameters in ({name: value}, VadOptions(**{name: value})):
            try:
                TranscriptionOptions(vad_parameters=parameters)
            except OptionError as e:
                assert str(e).startswith(f"vad_parameters: {name} must be ")
            else:
                assert_well_formed(field, value)


def assert_well_formed(field, value):
    """Holds that a value of a plain field, or what None stands for, is of the annotated type and within its range."""
    if value is None and (value := field.normalize(None)) is None:
        assert field.nullable
        return
    if field.option.check:
        return
    kind = next(
        kind for kind in ALLOWED_TYPES if kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
    )
    assert type(value) in ALLOWED_TYPES[kind]
    if isinstance(allowed := field.option.allowed, Range):
        assert allowed.least is None or value >= allowed.least
        assert allowed.most is None or value <= allowed.most
        assert value == value, "no NaN"


RANGES = [(record, name) for record, name in RECORDS if isinstance(option_fields(record)[name].option.allowed, Range)]


@pytest.mark.parametrize(("record", "name"), RANGES, ids=[name for _, name in RANGES])
def test_every_documented_bound_is_accepted_and_the_next_value_is_not(record, name):
    field = option_fields(record)[name]
    allowed, whole = field.option.allowed, field.plain.called == "an integer"
    for bound, outward in ((allowed.least, -1), (allowed.most, 1)):
        if bound is None:
            continue
        beyond = bound + outward if whole else math.nextafter(bound, outward * math.inf)
        if outward < 0 and allowed.above:
            bound, beyond = math.nextafter(bound, math.inf), bound
        assert getattr(record(**{name: bound}), name) == bound
        with pytest.raises(OptionError, match=f"^{name} must be "):
            record(**{name: beyond})


OPENAIS_NONE = {"beam_size": 1, "best_of": 1, "patience": 1.0, "length_penalty": 1.0}
"""What openai-whisper does for None: no beams, one sample, as many hypotheses as beams, the mean log-probability."""


def test_none_is_accepted_if_the_annotation_allows_it_or_openai_whisper_has_a_meaning_for_it():
    for name, field in FIELDS.items():
        if field.nullable or name in OPENAIS_NONE:
            assert getattr(TranscriptionOptions(**{name: None}), name) == OPENAIS_NONE.get(name)
        else:
            with pytest.raises(OptionError, match=f"^{name} must be .*, got None"):
                TranscriptionOptions(**{name: None})


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ({"suppress_tokens": "-1"}, (-1,)),
        ({"suppress_tokens": "11, 13"}, (11, 13)),
        ({"suppress_tokens": ""}, ()),
        ({"temperature": np.arange(0, 0.5, 0.2)}, (0.0, 0.2, 0.4)),
        ({"temperature": range(2)}, (0.0, 1.0)),
        ({"temperature": np.float32(0.5)}, 0.5),
    ],
)
def test_openai_whispers_spellings_are_accepted(given, normal):
    ((name, value),) = given.items()
    assert getattr(TranscriptionOptions(**{name: value}), name) == normal


def test_numbers_of_numpy_become_pythons():
    options = TranscriptionOptions(beam_size=np.int64(3), patience=np.float32(0.5), suppress_tokens=np.array([1, 2]))
    values = (options.beam_size, options.patience, *options.suppress_tokens)
    assert values == (3, 0.5, 1, 2)
    assert [type(value) for value in values] == [int, float, int, int]


def test_a_negative_zero_is_zero():
    assert math.copysign(1, TranscriptionOptions(temperature=-0.0).temperatures[0]) == 1
    assert math.copysign(1, TranscriptionOptions(no_speech_threshold=-0.0).no_speech_threshold) == 1


@pytest.mark.parametrize("value", [0, -3, MAX_BATCH_SIZE + 1, 2.0, True, "8"])
def test_the_batch_size_of_many_files_is_checked(value):
    with pytest.raises(OptionError, match=r"^batch_size must be .*>= 1 and <= 256, or None, got "):
        check_batch_size(value)


def test_the_batch_size_of_many_files_may_be_left_out():
    for value in (None, 1, MAX_BATCH_SIZE):
        check_batch_size(value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("beam_sise", "beam_size"),
        ("logprob_threshold", "log_prob_threshold"),
        ("x", "the options are language, task, "),
    ],
)
def test_an_unknown_option_is_refused_with_near_names(name, near):
    with pytest.raises(TypeError, match=f"unknown option '{name}'; .*{near}"):
        TranscriptionOptions.of(**{name: 1})


# --- the record ---------------------------------------------------------------------------------------------------


def test_the_record_can_be_pickled_copied_and_replaced():
    options = TranscriptionOptions("en", beam_size=2, initial_prompt=iter([1, 2]), vad_parameters={"threshold": 0.4})
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options
    assert dataclasses.replace(options, beam_size=3).initial_prompt == (1, 2)
    with pytest.raises(OptionError, match="beam_size"):
        dataclasses.replace(options, beam_size=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.beam_size = 3


def test_parameters_of_the_caller_are_not_changed():
    parameters, vad = {"threshold": 1}, VadOptions(threshold=1)
    options = TranscriptionOptions(vad_filter=True, vad_parameters=parameters)
    parameters["threshold"] = 7
    assert options.vad_options.threshold == 1
    assert type(TranscriptionOptions(vad_parameters=vad).vad_parameters.threshold) is float
    assert type(vad.threshold) is int


def test_options_and_flags_are_imported_without_torch_and_numpy():
    code = (
        "import sys, tilewhisper.engine.commands.parser as p; p.parse(['doctor']);"
        "print(*sorted({'torch', 'numpy', 'transformers'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


# --- the signature ------------------------------------------------------------------------------------------------


class Engine:
    @takes_options(TranscriptionOptions)
    def transcribe(self, audio, *args, progress=None, **options):
        """Transcribe."""
        return TranscriptionOptions.of(*args, **options)

    @takes_options(TranscriptionOptions)
    def transcribe_many(self, files, batch_size=4, **options):
        """Transcribe many."""


def test_the_signature_has_every_option():
    parameters = inspect.signature(Engine().transcribe).parameters
    assert list(parameters) == ["audio", *FIELDS, "progress"]
    assert {name: parameters[name].default for name in FIELDS} == {name: one.default for name, one in FIELDS.items()}
    keyword_only = [name for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    assert keyword_only == [
        "carry_initial_prompt",
        "batch_size",
        "seed",
        "audio_context",
        "audio_track",
        "strict_audio",
        "progress",
    ]


def test_the_models_methods_have_the_signature_of_the_options():
    for method in (WhisperModel.transcribe, WhisperModel.transcribe_many, BatchedInferencePipeline.transcribe):
        assert set(FIELDS) <= set(inspect.signature(method).parameters)
    assert inspect.signature(BatchedInferencePipeline.transcribe).parameters["batch_size"].default == 8


def test_a_method_without_positional_options_has_keyword_only_ones_and_its_own_default():
    parameters = inspect.signature(Engine().transcribe_many).parameters
    assert parameters["batch_size"].default == 4
    assert parameters["language"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(parameters)[:2] == ["files", "batch_size"]
    assert set(parameters) == {"files", *FIELDS}


def test_options_are_taken_by_position_as_in_faster_whisper():
    options = Engine().transcribe("a.wav", "en", "translate", False, 2)
    assert (options.language, options.task, options.beam_size) == ("en", "translate", 2)
    with pytest.raises(TypeError, match="multiple values for argument 'language'"):
        Engine().transcribe("a.wav", "en", language="de")


def test_the_docstring_lists_every_option_with_range_and_default():
    doc = Engine.transcribe.__doc__
    assert doc.startswith("Transcribe.\n")
    assert all(f"    {name}: {field.option.help}" in doc for name, field in FIELDS.items())
    assert "    beam_size: hypotheses followed at temperature 0; 1 is greedy (1 to 64, default: 5)\n" in doc
