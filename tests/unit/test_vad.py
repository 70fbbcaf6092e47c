"""`models.vad`: the network's probabilities, the options' spans, chunks, and times back in the file."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tilewhisper.models.audio import vad
from tilewhisper.models.audio.vad import FRAME, Span, Timeline, chunks, speech_spans
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import VadUnavailable

SAMPLE = Path(__file__).parents[1] / "data/sample.flac"
needs_vad = pytest.mark.skipif(
    not (importlib.util.find_spec("silero_vad") and importlib.util.find_spec("onnxruntime")),
    reason="the VAD is not installed: pip install 'tilewhisper[vad]'",
)


def seconds(*spans: tuple[float, float]) -> list[Span]:
    return [Span(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in spans]


def speech(*runs: tuple[float, int]) -> np.ndarray:
    """Probabilities: each value for that many frames."""
    return np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])


# ---- probabilities


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """Speech, 7 s of nothing, speech: 20 s, more than one run of the network."""
    samples = soundfile.read(SAMPLE, dtype="float32")[0]
    return np.concatenate([samples, np.zeros(7 * SAMPLE_RATE, np.float32), samples[:100_001]])


@needs_vad
@pytest.mark.slow
def test_probabilities_are_the_streaming_models(audio: np.ndarray) -> None:
    """The oracle: silero-vad's own TorchScript model, frame after frame."""
    package = importlib.util.find_spec("silero_vad")
    assert package and package.origin
    model = torch.jit.load(str(Path(package.origin).with_name("data") / "silero_vad.jit"))
    padded = torch.from_numpy(np.pad(audio, (0, -len(audio) % FRAME)))
    with torch.inference_mode():
        expected = [model(frame[None], SAMPLE_RATE).item() for frame in padded.split(FRAME)]
    # The recurrence amplifies the last bits in which the two runtimes differ: 5e-5 measured, 0.03 with a context of 0.
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
def test_a_missing_extra_says_what_to_install(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert speech_spans(joined, FRAME * 210, options) == [Span(10 * FRAME, 110 * FRAME)]
    assert speech_spans(apart, FRAME * 220, options) == [Span(10 * FRAME, 30 * FRAME), Span(100 * FRAME, 120 * FRAME)]


def test_between_the_thresholds_all_stays_as_it_was() -> None:
    doubtful = speech((0.4, 50), (0.9, 5), (0.4, 100))
    assert speech_spans(doubtful, FRAME * 155, VadOptions(speech_pad_ms=0)) == [Span(50 * FRAME, 155 * FRAME)]
    strict = VadOptions(speech_pad_ms=0, neg_threshold=0.45)
    assert speech_spans(doubtful, FRAME * 155, strict) == [Span(50 * FRAME, 55 * FRAME)]


def test_padding_stays_in_the_file_and_neighbours_share_the_gap() -> None:
    options = VadOptions(min_silence_duration_ms=100, speech_pad_ms=400)  # 12.5 frames
    found = speech_spans(speech((0.9, 50), (0.1, 10), (0.9, 50), (0.1, 100), (0.9, 50)), FRAME * 260, options)
    assert found == [
        Span(0, 55 * FRAME),
        Span(55 * FRAME, 110 * FRAME + 6400),
        Span(210 * FRAME - 6400, 260 * FRAME),
    ]


def test_a_long_span_is_cut_in_its_last_silence() -> None:
    options = VadOptions(max_speech_duration_s=10, speech_pad_ms=0)
    whole = speech((0.9, 200), (0.1, 8), (0.9, 200))
    first, second = speech_spans(whole, FRAME * 408, options)
    assert (first, second) == (Span(0, 200 * FRAME), Span(208 * FRAME, 408 * FRAME))


def test_spans_are_faster_whispers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own rules over the same probabilities, many made-up courses and options."""
    theirs = pytest.importorskip("faster_whisper.vad")
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(400):
        runs = [(rng.choice([0.05, 0.3, 0.4, 0.45, 0.9]), rng.integers(1, 60)) for _ in range(30)]
        course = np.clip(speech(*runs) + rng.normal(0, 0.05, sum(n for _, n in runs)), 0, 1).astype(np.float32)
        samples = FRAME * len(course) - int(rng.integers(1, FRAME))
        options = {
            "threshold": float(rng.choice([0.3, 0.5])),
            "neg_threshold": [None, 0.1, 0.2][rng.integers(3)],
            "min_speech_duration_ms": int(rng.choice([0, 250, 1000])),
            "max_speech_duration_s": float(rng.choice([1.5, 3, 30, math.inf])),
            "min_silence_duration_ms": int(rng.choice([0, 100, 160, 500, 2000])),
            "speech_pad_ms": int(rng.choice([0, 30, 400])),
        }
        monkeypatch.setattr(theirs, "get_vad_model", lambda course=course: lambda _: course)
        expected = theirs.get_speech_timestamps(np.zeros(samples, np.float32), theirs.VadOptions(**options))
        found = speech_spans(course, samples, VadOptions(**options))
        assert found == [Span(span["start"], span["end"]) for span in expected], options
        compared += len(found)
    assert compared > 1000


def test_options_are_faster_whispers() -> None:
    theirs = pytest.importorskip("faster_whisper.vad")
    assert vars(VadOptions()) == vars(theirs.VadOptions())


# ---- chunks and times


def test_chunks_join_neighbours_up_to_the_longest_silence_of_their_second_half() -> None:
    spans = seconds((1, 10), (12, 25), (26, 31), (31.5, 40), (80, 81))
    assert chunks(spans) == seconds((1, 25), (26, 40), (80, 81))
    assert chunks([]) == []


def test_of_equal_silences_a_chunk_ends_at_the_last_within_thirty_seconds() -> None:
    spans = seconds(*((second, second + 0.5) for second in range(40)))
    assert chunks(spans) == seconds((0, 29.5), (30, 39.5))


def test_a_chunk_with_no_silence_in_its_second_half_ends_before() -> None:
    assert chunks(seconds((0, 9), (10, 31), (50, 51))) == seconds((0, 9), (10, 31), (50, 51))


def test_a_chunk_is_never_longer_than_asked() -> None:
    spans = seconds((0, 5), (6, 76))
    third = 70 * SAMPLE_RATE // 3  # of the second span
    assert chunks(spans) == [
        Span(0, 6 * SAMPLE_RATE + third),
        Span(6 * SAMPLE_RATE + third, 6 * SAMPLE_RATE + 140 * SAMPLE_RATE // 3),
        Span(6 * SAMPLE_RATE + 140 * SAMPLE_RATE // 3, 76 * SAMPLE_RATE),
    ]
    assert max(chunk.end - chunk.start for chunk in chunks(spans, SAMPLE_RATE)) == SAMPLE_RATE


def test_times_are_restored() -> None:
    times = Timeline(seconds((2, 5), (10, 14), (20, 21)))
    assert times.duration == 8
    assert [times.restore(t) for t in (0, 2.5, 3, 6.5, 7, 8)] == [2, 4.5, 10, 13.5, 20, 21]
    assert [times.restore(t, is_end=True) for t in (2.5, 3, 3.02, 7, 8)] == [4.5, 5, 10.02, 14, 21]
    assert times.restore(9, is_end=True) == 22  # beyond the last
    assert times.restore_word(2.9, 3.3) == pytest.approx((9.9, 10.3))
    assert Timeline([]).restore(1.5) == 1.5


def test_times_are_restored_as_faster_whisper_does() -> None:
    theirs = pytest.importorskip("faster_whisper.vad")
    rng = np.random.default_rng(1)
    edges = np.cumsum(rng.integers(1_000, 100_000, 40))
    spans = [Span(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
    map_ = theirs.SpeechTimestampsMap([vars(span) for span in spans], SAMPLE_RATE)
    times = Timeline(spans)
    for t in np.arange(0, times.duration, 0.02):
        for is_end in (False, True):
            assert times.restore(t, is_end=is_end) == pytest.approx(
                map_.get_original_time(t, is_end=is_end), abs=0.0051
            )
