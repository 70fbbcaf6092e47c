"""Real weights and speech: words, prompts, batches, the VAD filter, noise; and faster-whisper's calls."""

import inspect
from itertools import pairwise

import jiwer
import numpy as np
import pytest
import torch

from tilewhisper import BatchedInferencePipeline, WhisperModel
from tilewhisper.engine.encoding.audio_context import FULL
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.router import Counts
from tilewhisper.models.audio import reader
from tilewhisper.models.errors import AudioError

GREEDY = {"beam_size": 1, "temperature": 0.0}

# openai-whisper 20250625, tiny.en in float32, greedy, 1688-142285-0002.flac
WORDS = [
    (" You", 0.0, 0.44, 0.63),
    (" don't", 0.44, 0.68, 0.99),
    (" mean", 0.68, 0.92, 1.0),
    (" that", 0.92, 1.06, 0.98),
    (" you", 1.06, 1.28, 0.99),
    (" thought", 1.28, 1.44, 0.96),
    (" me", 1.44, 1.66, 0.99),
    (" so", 1.66, 1.94, 0.99),
    (" silly.", 1.94, 2.14, 0.99),
]


def figures(segments) -> list[tuple]:
    return [(s.id, s.seek, s.start, s.end, s.tokens) for s in segments]


def plain(segments) -> str:
    text = "".join(segment.text for segment in segments).lower()
    return " ".join("".join(c for c in text if c.isalnum() or c in " '").split())


@pytest.fixture(scope="module")
def two_windows(shared):
    """43 s."""
    return shared / "long" / "61-52s.wav"


@pytest.fixture(scope="module")
def alone(engine, two_windows):
    return list(engine("tiny.en").transcribe(two_windows, **GREEDY)[0])


def test_words_are_openais(engine, shared):
    clip = shared / "librispeech" / "1688-142285-0002.flac"
    segments, _ = engine("tiny.en").transcribe(clip, **GREEDY, word_timestamps=True, audio_context="full")
    words = [word for segment in segments for word in segment.words]
    assert [word.word for word in words] == [word for word, *_ in WORDS]
    for ours, (_, start, end, probability) in zip(words, WORDS, strict=True):
        assert (ours.start, ours.end) == (pytest.approx(start, abs=0.021), pytest.approx(end, abs=0.021))
        assert ours.probability == pytest.approx(probability, abs=0.02)


def test_words_with_a_cheap_silence_are_where_they_were(engine, shared):
    clip = shared / "librispeech" / "1688-142285-0002.flac"
    segments, _ = engine("tiny.en").transcribe(clip, **GREEDY, word_timestamps=True, audio_context="sparse:4")
    starts = [word.start for segment in segments for word in segment.words]
    assert np.median(np.abs(np.subtract(starts, [start for _, start, *_ in WORDS]))) <= 0.06


def test_a_text_as_long_as_the_context_has_times(engine):
    model = engine("tiny.en")
    encoded = model.runtime.encode_window(torch.zeros(1, 80, 3000), 500, FULL, Counts())
    text = [1000] * (model.runtime.text_context - 1)  # all that a decoder fits after start-of-transcript
    times, probabilities = model.runtime.align(
        encoded, model.runtime.project_cross_kv(encoded), 500, "en", "transcribe", text
    )
    assert (len(times.starts), len(probabilities)) == (model.runtime.text_context, model.runtime.text_context - 1)
    assert all(0 <= a <= b <= 5 for a, b in pairwise(times.starts))


def test_a_prompt_is_seen(engine, shared):
    model = engine("tiny.en")
    plainly, prompted = (
        list(model.transcribe(shared / "jfk.flac", **GREEDY, initial_prompt=prompt)[0])
        for prompt in (None, "my fellow americans ask not what")
    )
    assert "Americans" in plainly[0].text and "Americans" not in "".join(s.text for s in prompted)


@pytest.mark.parametrize("timestamps", [True, False])
def test_a_prefix_begins_the_text(engine, shared, timestamps):
    segments, _ = engine("tiny.en").transcribe(
        shared / "jfk.flac", **GREEDY, prefix="And so my", without_timestamps=not timestamps
    )
    found = list(segments)
    text = " And so my fellow Americans ask not what your country can do for you"  # faster-whisper 1.2.1's, too
    assert found[0].text.startswith(text) and len(found) == (2 if timestamps else 1)
    assert (found[0].start, found[-1].end) == (0.0, pytest.approx(11, abs=0.5))


def test_only_the_first_chunk_of_a_file_begins_with_the_prefix(engine, two_windows):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    segments, _ = engine("tiny.en").transcribe(two_windows, batch_size=4, **GREEDY, prefix="Listen:")
    text = "".join(segment.text for segment in segments)
    assert (text.count("Listen:"), text.startswith(" Listen:"), segments.report().windows) == (1, True, 2)


def test_many_files_together_give_what_each_gives_alone(engine, shared, two_windows, alone):
    model = engine("tiny.en")
    files = [two_windows, "missing.wav", shared / "jfk.flac"]
    first, missing, last = model.transcribe_many(files, batch_size=3, **GREEDY)
    assert (figures(first.segments), first.report.batch_size) == (figures(alone), 2)
    assert first.info.duration == pytest.approx(42.996)
    assert figures(last.segments) == figures(model.transcribe(shared / "jfk.flac", **GREEDY)[0])
    assert isinstance(missing.error, AudioError) and (missing.segments, missing.info) == ([], None)


def test_files_of_which_nothing_is_asked_do_not_end_the_others(engine, shared):
    short, speech = np.zeros(16000, np.float32), reader.decode_audio(shared / "jfk.flac")
    files = [*[short] * 9, speech, short]
    *before, jfk, after = engine("tiny.en").transcribe_many(files, batch_size=2, **GREEDY, clip_timestamps="5")
    assert [transcript.segments for transcript in (*before, after)] == [[]] * 10
    assert "do for your country" in "".join(segment.text for segment in jfk.segments)


def test_a_file_in_chunks(engine, shared, two_windows, alone):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    segments, info = engine("tiny.en").transcribe(two_windows, batch_size=4, **GREEDY)
    found = list(segments)
    assert [segment.id for segment in found] == list(range(len(found)))
    assert all(a.start < a.end <= b.start for a, b in pairwise(found)) and found[-1].end <= info.duration
    assert jiwer.wer(plain(alone), plain(found)) < 0.1
    report = segments.report()
    assert (report.batch_size, report.windows) == (2, 2)
    assert "vad" in [stage.name for stage in report.stages]
    _, info = BatchedInferencePipeline(engine("tiny.en")).transcribe(shared / "jfk.flac", batch_size=4)
    assert (info.transcription_options.batch_size, info.vad_options.max_speech_duration_s) == (4, 30)


def test_silence_that_is_cut_out_is_back_in_the_times(engine, shared):
    pytest.importorskip("silero_vad")
    pytest.importorskip("onnxruntime")
    speech, quiet = reader.decode_audio(shared / "jfk.flac"), np.zeros(10 * 16000, np.float32)
    segments, info = engine("tiny.en").transcribe(
        np.concatenate([quiet, speech, quiet, speech]), **GREEDY, vad_filter=True, word_timestamps=True
    )
    found = list(segments)
    assert (info.duration, info.duration_after_vad) == (42, pytest.approx(22, abs=2.5))
    assert info.vad_options.min_silence_duration_ms == 2000
    starts = [word.start for segment in found for word in segment.words if "fellow" in word.word]
    assert starts == [pytest.approx(10 + 1.5, abs=0.7), pytest.approx(31 + 1.5, abs=0.7)]
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(w for s in found for w in s.words))


@pytest.mark.parametrize("kind", ["zeros", "noise", "tone"])
def test_nothing_is_said_where_nobody_speaks(engine, kind):
    samples = 31 * 16000
    sound = {
        "zeros": np.zeros(samples),
        "noise": np.random.default_rng(0).standard_normal(samples) * 0.001,
        "tone": 0.3 * np.sin(np.arange(samples) * (2 * np.pi * 440 / 16000)),
    }[kind].astype(np.float32)
    assert list(engine("tiny.en").transcribe(sound, beam_size=1, best_of=1)[0]) == []


def test_transcribe_has_faster_whispers_parameters():
    theirs = inspect.signature(pytest.importorskip("faster_whisper").WhisperModel.transcribe).parameters
    ours = inspect.signature(WhisperModel.transcribe).parameters

    def plainly(value):
        return list(value) if isinstance(value, list | tuple) else value

    assert list(ours)[: len(theirs)] == list(theirs)
    defaults = {name: plainly(parameter.default) for name, parameter in theirs.items()}
    defaults["max_initial_timestamp"] = None  # the checkpoint's own, which is their 1.0 s in OpenAI's models
    assert {name: plainly(ours[name].default) for name in theirs} == defaults
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs) :])


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"device": "cuda"}, "CPU"),
        ({"compute_type": "float8"}, "float32"),
        ({"num_workers": 4}, "transcribe_many"),
        ({"revision": "v1"}, "path"),
        ({"beams": 5}, "leave it out"),
    ],
)
def test_what_a_model_cannot_be_loaded_with_is_refused(parameters, word):
    with pytest.raises(OptionError, match=word):
        WhisperModel("tiny.en", **parameters)
