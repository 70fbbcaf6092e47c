"""Voice activity detection: the network's probabilities, speech spans, chunks, and times mapped back to the file."""

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.models.audio import vad
from tilewhisper.models.audio.vad import FRAME_SAMPLES, SpeechSpan, Timeline, chunks, speech_spans
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import VadUnavailable

SAMPLE = Path(__file__).parents[1] / "data/sample.flac"
needs_vad = pytest.mark.skipif(
    not (importlib.util.find_spec("silero_vad") and importlib.util.find_spec("onnxruntime")),
    reason="silero-vad is not installed: pip install 'tilewhisper[vad]'",
)


def seconds(*spans: tuple[float, float]) -> list[SpeechSpan]:
    return [SpeechSpan(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in spans]


def speech(*runs: tuple[float, int]) -> np.ndarray:
    """Probabilities from (value, number of frames) pairs."""
    return np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])


# ---- probabilities


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """20 s of speech, 7 s of silence, speech: more than one run of the network."""
    samples = soundfile.read(SAMPLE, dtype="float32")[0]
    return np.concatenate([samples, np.zeros(7 * SAMPLE_RATE, np.float32), samples[:100_001]])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The streaming model's products are tiny: a frame takes 1 ms on one thread, 40 on two of a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@needs_vad
def test_a_stream_has_the_probabilities_of_the_whole(audio: np.ndarray) -> None:
    detector = vad.SpeechDetector()
    cuts = np.cumsum([1, 700, 511, 3, 16_000])
    streamed = [detector.feed(part) for part in np.split(audio, cuts)]
    whole = vad.speech_probabilities([audio])
    np.testing.assert_allclose(np.concatenate([*streamed, detector.finish()]), whole, atol=1e-5)
    assert [len(part) for part in streamed[:4]] == [0, 1, 1, 0]


@needs_vad
@pytest.mark.usefixtures("one_thread")
def test_probabilities_are_the_streaming_models(audio: np.ndarray) -> None:
    """The oracle is silero-vad's own TorchScript model, called frame by frame."""
    package = importlib.util.find_spec("silero_vad")
    assert package and package.origin
    model = torch.jit.load(str(Path(package.origin).with_name("data") / "silero_vad.jit"))
    padded = torch.from_numpy(np.pad(audio, (0, -len(audio) % FRAME_SAMPLES)))
    # Unoptimized, because the compiler takes longer than the 625 frames.
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        expected = [model(frame[None], SAMPLE_RATE).item() for frame in padded.split(FRAME_SAMPLES)]
    # The recurrence amplifies rounding differences of the two runtimes: 5e-5 measured, 0.03 with a context of 0.
    np.testing.assert_allclose(vad.speech_probabilities([audio]), expected, atol=1e-3)


@needs_vad
@pytest.mark.parametrize("piece", [777, 65_536])
def test_blocks_of_any_size_give_the_same_probabilities(audio: np.ndarray, piece: int) -> None:
    blocks = [audio[first : first + piece] for first in range(0, len(audio), piece)]
    np.testing.assert_array_equal(vad.speech_probabilities(blocks), vad.speech_probabilities([audio]))


@needs_vad
def test_speech_is_found_and_silence_is_not(audio: np.ndarray) -> None:
    before, after = speech_spans(vad.speech_probabilities([audio]), len(audio), VadOptions())
    assert before.start < SAMPLE_RATE and abs(before.end / SAMPLE_RATE - 7.3) < 0.6
    assert abs(after.start / SAMPLE_RATE - 14.3) < 0.6 and after.end == len(audio)
    assert not len(vad.speech_probabilities([]))
    assert speech_spans(vad.speech_probabilities([np.zeros(SAMPLE_RATE, np.float32)]), SAMPLE_RATE, VadOptions()) == []


@pytest.mark.parametrize("absent", ["silero_vad", "onnxruntime"])
def test_the_error_for_a_missing_extra_says_what_to_install(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(vad.importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    monkeypatch.setitem(sys.modules, absent, None)
    vad._session.cache_clear()
    with pytest.raises(VadUnavailable, match=r"pip install 'tilewhisper\[vad\]'"):
        vad.speech_probabilities([np.zeros(SAMPLE_RATE, np.float32)])


# ---- spans


def test_short_silence_does_not_end_a_span_and_long_silence_does() -> None:
    options = VadOptions(speech_pad_ms=0)  # 2000 ms are 62.5 frames
    joined = speech((0.1, 10), (0.9, 20), (0.1, 60), (0.9, 20), (0.1, 100))
    apart = speech((0.1, 10), (0.9, 20), (0.1, 70), (0.9, 20), (0.1, 100))
    assert speech_spans(joined, FRAME_SAMPLES * 210, options) == [SpeechSpan(10 * FRAME_SAMPLES, 110 * FRAME_SAMPLES)]
    assert speech_spans(apart, FRAME_SAMPLES * 220, options) == [
        SpeechSpan(10 * FRAME_SAMPLES, 30 * FRAME_SAMPLES),
        SpeechSpan(100 * FRAME_SAMPLES, 120 * FRAME_SAMPLES),
    ]


def test_between_the_thresholds_the_state_does_not_change() -> None:
    doubtful = speech((0.4, 50), (0.9, 5), (0.4, 100))
    assert speech_spans(doubtful, FRAME_SAMPLES * 155, VadOptions(speech_pad_ms=0)) == [
        SpeechSpan(50 * FRAME_SAMPLES, 155 * FRAME_SAMPLES)
    ]
    strict = VadOptions(speech_pad_ms=0, neg_threshold=0.45)
    assert speech_spans(doubtful, FRAME_SAMPLES * 155, strict) == [SpeechSpan(50 * FRAME_SAMPLES, 55 * FRAME_SAMPLES)]


def test_padding_stays_in_the_file_and_neighbours_share_the_gap() -> None:
    options = VadOptions(min_silence_duration_ms=100, speech_pad_ms=400)  # 12.5 frames
    found = speech_spans(speech((0.9, 50), (0.1, 10), (0.9, 50), (0.1, 100), (0.9, 50)), FRAME_SAMPLES * 260, options)
    assert found == [
        SpeechSpan(0, 55 * FRAME_SAMPLES),
        SpeechSpan(55 * FRAME_SAMPLES, 110 * FRAME_SAMPLES + 6400),
        SpeechSpan(210 * FRAME_SAMPLES - 6400, 260 * FRAME_SAMPLES),
    ]


def test_a_long_span_is_cut_at_its_last_silence() -> None:
    options = VadOptions(max_speech_duration_s=10, speech_pad_ms=0)
    whole = speech((0.9, 200), (0.1, 8), (0.9, 200))
    first, second = speech_spans(whole, FRAME_SAMPLES * 408, options)
    assert (first, second) == (SpeechSpan(0, 200 * FRAME_SAMPLES), SpeechSpan(208 * FRAME_SAMPLES, 408 * FRAME_SAMPLES))


OPTIONS = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0.3, 0.5]),
        "neg_threshold": st.sampled_from([None, 0.1, 0.2]),
        "min_speech_duration_ms": st.sampled_from([0, 250, 1000]),
        "max_speech_duration_s": st.sampled_from([1.5, 3.0, 30.0, math.inf]),
        "min_silence_duration_ms": st.sampled_from([0, 100, 160, 500, 2000]),
        "speech_pad_ms": st.sampled_from([0, 30, 400]),
    }
)
RUNS = st.lists(
    st.tuples(st.sampled_from([0.05, 0.3, 0.4, 0.45, 0.5, 0.9]), st.integers(1, 60)), min_size=1, max_size=30
)


@given(runs=RUNS, missing=st.integers(0, FRAME_SAMPLES - 1), options=OPTIONS)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_spans_are_faster_whispers(
    runs: list[tuple[float, int]], missing: int, options: dict[str, float | None]
) -> None:
    """faster-whisper's own rules on the same probabilities."""
    theirs = pytest.importorskip("faster_whisper.vad")
    probabilities = speech(*runs)
    samples = FRAME_SAMPLES * len(probabilities) - missing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "get_vad_model", lambda: lambda _: probabilities)
        expected = theirs.get_speech_timestamps(np.zeros(samples, np.float32), theirs.VadOptions(**options))
    found = speech_spans(probabilities, samples, VadOptions(**options))
    assert found == [SpeechSpan(span["start"], span["end"]) for span in expected]


@given(runs=RUNS, missing=st.integers(0, FRAME_SAMPLES - 1), options=OPTIONS)
@settings(deadline=None, derandomize=True)
def test_spans_are_in_order_and_inside_the_audio(
    runs: list[tuple[float, int]], missing: int, options: dict[str, float | None]
) -> None:
    probabilities = speech(*runs)
    samples = FRAME_SAMPLES * len(probabilities) - missing
    spans = speech_spans(probabilities, samples, VadOptions(**options))
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), samples]
    assert edges == sorted(edges)
    joined = chunks(spans, 3 * SAMPLE_RATE)
    edges = [edge for chunk in joined for edge in (chunk.start, chunk.end)]
    assert edges == sorted(edges)
    assert all(chunk.end - chunk.start <= 3 * SAMPLE_RATE for chunk in joined)
    assert all(any(chunk.start <= span.start < chunk.end for chunk in joined) for span in spans)


def test_options_are_faster_whispers() -> None:
    theirs = pytest.importorskip("faster_whisper.vad")
    assert vars(VadOptions()) == vars(theirs.VadOptions())


# ---- chunks and times


def test_a_chunk_ends_at_the_longest_silence_in_its_second_half() -> None:
    spans = seconds((1, 10), (12, 25), (26, 31), (31.5, 40), (80, 81))
    assert chunks(spans) == seconds((1, 25), (26, 40), (80, 81))
    assert chunks([]) == []


def test_a_chunk_ends_at_the_last_of_equally_long_silences() -> None:
    spans = seconds(*((second, second + 0.5) for second in range(40)))
    assert chunks(spans) == seconds((0, 29.5), (30, 39.5))


def test_a_chunk_without_silence_in_its_second_half_ends_earlier() -> None:
    assert chunks(seconds((0, 9), (10, 31), (50, 51))) == seconds((0, 9), (10, 31), (50, 51))


def test_a_chunk_is_never_longer_than_the_maximum() -> None:
    spans = seconds((0, 5), (6, 76))
    third = 70 * SAMPLE_RATE // 3  # of the second span
    assert chunks(spans) == [
        SpeechSpan(0, 6 * SAMPLE_RATE + third),
        SpeechSpan(6 * SAMPLE_RATE + third, 6 * SAMPLE_RATE + 140 * SAMPLE_RATE // 3),
        SpeechSpan(6 * SAMPLE_RATE + 140 * SAMPLE_RATE // 3, 76 * SAMPLE_RATE),
    ]
    assert max(chunk.end - chunk.start for chunk in chunks(spans, SAMPLE_RATE)) == SAMPLE_RATE


def test_times_are_mapped_back_to_the_file() -> None:
    times = Timeline(seconds((2, 5), (10, 14), (20, 21)))
    assert times.duration == 8
    assert [times.restore(t) for t in (0, 2.5, 3, 6.5, 7, 8)] == [2, 4.5, 10, 13.5, 20, 21]
    assert [times.restore(t, is_end=True) for t in (2.5, 3, 3.02, 7, 8)] == [4.5, 5, 10.02, 14, 21]
    assert times.restore(9, is_end=True) == 22  # beyond the last
    assert times.restore_word(2.9, 3.3) == pytest.approx((9.9, 10.3))
    assert Timeline([]).restore(1.5) == 1.5


def test_times_are_mapped_back_as_by_faster_whisper() -> None:
    theirs = pytest.importorskip("faster_whisper.vad")
    rng = np.random.default_rng(1)
    edges = np.cumsum(rng.integers(1_000, 100_000, 40))
    spans = [SpeechSpan(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    map_ = theirs.SpeechTimestampsMap([vars(span) for span in spans], SAMPLE_RATE)
    times = Timeline(spans)
    for t in np.arange(0, times.duration, 0.02):
        for is_end in (False, True):
            assert times.restore(t, is_end=is_end) == pytest.approx(
                map_.get_original_time(t, is_end=is_end), abs=0.0051
            )
