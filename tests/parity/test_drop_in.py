"""Programs written for faster-whisper: their calls work here, or the error names what to use instead.

Where faster-whisper itself is installed, its public surface is compared with ours.
"""

import copy
import dataclasses
import inspect
import logging
import pickle
import re

import numpy as np
import pytest
from conftest import SAMPLE, require_weights

import tilewhisper
from tilewhisper import BatchedInferencePipeline, WhisperModel
from tilewhisper.engine.errors import USER_ERRORS, ModelClosed, OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.results import Segment, TranscriptionInfo, Word
from tilewhisper.models.audio.vad_options import VadOptions


@pytest.fixture(scope="module")
def model():
    with WhisperModel(require_weights("tiny.en")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def multilingual():
    with WhisperModel(require_weights("base")) as loaded:
        yield loaded


# --- results --------------------------------------------------------------------------------------------------------


def test_segments_words_and_info_may_be_changed(model):
    """Live captions add the offset of their chunk."""
    segments, info = model.transcribe(SAMPLE, "en", word_timestamps=True)
    info.duration, info.language = 0.0, "xx"
    (first, *_) = segments
    start = first.words[0].start
    first.start += 30
    first.words[0].start += 30
    assert first.words[0].start == start + 30
    assert segments.report().language == "en"


def test_asdict_is_deprecated_and_dataclasses_asdict_is_not(model):
    segment = next(model.transcribe(SAMPLE, "en", word_timestamps=True)[0])
    for record in (segment, segment.words[0]):
        with pytest.warns(DeprecationWarning, match=r"dataclasses\.asdict"):
            assert record._asdict() == dataclasses.asdict(record)


def test_results_have_the_fields_of_faster_whispers_first():
    theirs = pytest.importorskip("faster_whisper.transcribe")
    for ours in (Segment, Word, TranscriptionInfo):
        fields = [field.name for field in dataclasses.fields(ours)]
        expected = [field.name for field in dataclasses.fields(getattr(theirs, ours.__name__))]
        assert fields[: len(expected)] == expected
    options = {field.name for field in dataclasses.fields(theirs.TranscriptionOptions)}
    assert options <= set(dir(TranscriptionOptions()))


# --- calls ----------------------------------------------------------------------------------------------------------


def test_the_parameters_of_a_model_are_in_faster_whispers_order():
    theirs = inspect.signature(pytest.importorskip("faster_whisper").WhisperModel).parameters
    ours = inspect.signature(WhisperModel).parameters
    named = [name for name, one in theirs.items() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    assert list(ours)[: len(named)] == named
    assert [ours[name].default for name in named[1:]] == [theirs[name].default for name in named[1:]]


def test_the_parameters_of_the_other_methods_are_faster_whispers():
    theirs = pytest.importorskip("faster_whisper")
    for ours, their in (
        (WhisperModel.detect_language, theirs.WhisperModel.detect_language),
        (tilewhisper.decode_audio, theirs.decode_audio),
        (tilewhisper.format_timestamp, theirs.format_timestamp),
    ):
        found, expected = inspect.signature(ours).parameters, inspect.signature(their).parameters
        named = list(found.values())[: len(expected)]
        assert [one.name for one in named] == list(expected)
        assert [one.default for one in named] == [one.default for one in expected.values()]
    batched = inspect.signature(BatchedInferencePipeline.transcribe).parameters
    expected = inspect.signature(theirs.BatchedInferencePipeline.transcribe).parameters
    assert list(batched)[: len(expected)] == list(expected)


def test_the_batched_pipeline_takes_its_options_by_position(model):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    pipeline = BatchedInferencePipeline(model)
    parameters = inspect.signature(pipeline.transcribe).parameters
    before = [*parameters][1 : [*parameters].index("batch_size")]
    given = {"language": "en", "beam_size": 1}
    values = [given.get(name, parameters[name].default) for name in before]
    _, info = pipeline.transcribe(SAMPLE, *values, 3, "Tilewhisper")
    options = info.transcription_options
    assert (options.batch_size, options.hotwords, options.beam_size) == (3, "Tilewhisper", 1)
    with pytest.raises(TypeError, match="given twice"):
        pipeline.transcribe(SAMPLE, *values, 3, batch_size=4)


def test_detect_language(model, multilingual):
    language, probability, every = multilingual.detect_language(SAMPLE)
    assert (language, probability) == every[0] == ("en", pytest.approx(0.94, abs=0.03))
    assert len(every) == len(multilingual.supported_languages) == 99
    assert sorted(one for one, _ in every) == sorted(multilingual.supported_languages)
    samples = tilewhisper.decode_audio(SAMPLE)
    assert multilingual.detect_language(samples, language_detection_segments=3)[0] == "en"
    assert model.detect_language(samples) == ("en", 1.0, [("en", 1.0)])
    assert model.supported_languages == ["en"]
    for wrong in ({}, {"features": np.zeros((80, 3000), np.float32)}):
        with pytest.raises(OptionError, match="takes audio"):
            multilingual.detect_language(**wrong)


@pytest.mark.parametrize("kind", ["float16", "int8_float16", "int8_bfloat16"])
def test_a_compute_type_of_gpus_is_replaced_by_the_nearest_with_a_warning(kind, caplog):
    with caplog.at_level(logging.WARNING), WhisperModel(require_weights("tiny.en"), "cpu", 0, kind) as loaded:
        nearest = "torch" if kind == "float16" else "int8"
        assert loaded.policy.name == nearest
    (warning,) = caplog.messages
    assert f"compute_type {kind} is for GPUs" in warning


# --- attributes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [("model", "is_multilingual"), ("hf_tokenizer", "checkpoint.tokenizer"), ("feature_extractor", "log_mel")],
)
def test_a_missing_attribute_names_its_equivalent(model, name, advice):
    with pytest.raises(AttributeError, match=f"'WhisperModel' object has no attribute '{name}': .*{advice}"):
        getattr(model, name)
    assert not hasattr(model, name)


def test_an_unknown_attribute_is_an_ordinary_error(model):
    with pytest.raises(AttributeError, match=r"^'WhisperModel' object has no attribute 'transcibe'$"):
        model.transcibe  # noqa: B018


@pytest.mark.parametrize("kind", ["WhisperModel", "BatchedInferencePipeline"])
def test_every_public_name_of_faster_whispers_classes_exists_or_is_explained(model, kind):
    theirs = getattr(pytest.importorskip("faster_whisper"), kind)
    ours = model if kind == "WhisperModel" else BatchedInferencePipeline(model)
    names = {*dir(theirs), *re.findall(r"self\.(\w+)\b.* = ", inspect.getsource(theirs.__init__))}
    for name in names:
        if not name.startswith("_") and not hasattr(ours, name):
            with pytest.raises(AttributeError, match=f"no attribute '{name}': ."):
                getattr(ours, name)


def test_every_export_of_faster_whisper_is_one_of_ours():
    assert set(pytest.importorskip("faster_whisper").__all__) - {"download_model"} <= set(tilewhisper.__all__)


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copied_or_pickled_model_is_loaded_again_with_its_options(again):
    with WhisperModel(require_weights("tiny.en"), backends=["layers.0.fc1=torch"], local_files_only=True) as loaded:
        expected = [segment.text for segment in loaded.transcribe(SAMPLE, "en")[0]]
        other = again(BatchedInferencePipeline(loaded)).model
    if other is not loaded:  # copy.copy of a pipeline shares its model
        with other:
            assert other.description.backend_overrides == ("layers.0.fc1=torch",)
            assert [segment.text for segment in other.transcribe(SAMPLE, "en")[0]] == expected
    with pytest.raises(ModelClosed):
        again(loaded)


# --- little audio ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [0, 1, 100, 1599])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"language": "en", "clip_timestamps": "1,2"},
        {"word_timestamps": True, "hallucination_silence_threshold": 1.0},
        {"multilingual": True},
        {"vad_filter": True},
        {"batch_size": 4},
    ],
)
def test_too_little_audio_for_a_word_has_no_segments(multilingual, samples, options):
    if "vad_filter" in options or "batch_size" in options:
        pytest.importorskip("silero_vad")
        pytest.importorskip("onnxruntime")
    audio = np.zeros(samples, np.float32)
    segments, info = multilingual.transcribe(audio, **options)
    assert list(segments) == [] and info.duration == samples / 16000
    report = segments.report()
    assert (report.rtf is None) == (report.speed is None) == (samples == 0)
    (transcript,) = multilingual.transcribe_many([audio], language="en")
    assert (transcript.error, transcript.segments) == (None, [])
    assert len(multilingual.detect_language(audio)[2]) == 99


# --- wrong values ---------------------------------------------------------------------------------------------------

VALUES = [
    None, "", "2", "no such", "\0", "x" * 5000, b"x", 5.0, -1, 0, 10**6, 10**30, True, float("nan"), float("inf"),
    np.int64(-3), np.float32(0.5), np.arange(3), np.zeros((2, 2)), [], [1], ["a"], {"a": 1}, object(), VadOptions(),
]  # fmt: skip


@pytest.mark.parametrize("name", [*inspect.signature(WhisperModel).parameters][:-1])
def test_any_parameter_of_a_model_is_accepted_or_refused_by_an_error_for_the_user(name):
    for value in VALUES:
        try:
            WhisperModel(**{"model_size_or_path": require_weights("tiny.en"), name: value}).close()
        except USER_ERRORS as error:
            assert "\n" not in str(error) and len(str(error)) < 6000


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_audio_and_files_of_any_type_are_accepted_or_refused_by_an_error_for_the_user(model, value):
    for call in (
        lambda: list(model.transcribe(value)[0]),
        lambda: model.detect_language(value),
        lambda: tilewhisper.decode_audio(value),
        lambda: list(BatchedInferencePipeline(model).transcribe(value)[0]),
        lambda: BatchedInferencePipeline(value),
        lambda: tilewhisper.decode_audio(SAMPLE, value),
        lambda: tilewhisper.decode_audio(SAMPLE, split_stereo=value),
        lambda: [one.error for one in model.transcribe_many(value)],
        lambda: list(model.transcribe_many([SAMPLE], value, beam_size=1)),
    ):
        try:
            call()
        except USER_ERRORS as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("files", ["talk.wav", b"talk.wav", SAMPLE, np.zeros(16000, np.float32), 5, None])
def test_one_file_is_not_several(model, files):
    with pytest.raises(OptionError, match="files must be several audio inputs"):
        model.transcribe_many(files)


def test_best_of_none_draws_one_sample_when_a_window_is_decoded_again(model):
    options = {"beam_size": None, "best_of": None, "patience": None, "length_penalty": None}
    segments, _ = model.transcribe(SAMPLE, "en", log_prob_threshold=0.0, **options)
    assert next(segments).temperature == 1.0, "every window fails the check"
