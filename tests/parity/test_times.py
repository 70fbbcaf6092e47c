"""Times of segments and words, whatever the options, on speech between silence, noise and music."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.engine.pipeline.segmenter import MIN_FRAMES
from tilewhisper.engine.results import Segment
from tilewhisper.engine.timestamps.words import LONGEST_WORD
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import FRAMES_PER_SECOND, SAMPLE_RATE

SAMPLE = Path(__file__).parents[1] / "data" / "sample.flac"
ROUNDING = 0.5 / FRAMES_PER_SECOND + 1e-6
"""Clips are rounded to frames."""


def music(seconds: float) -> np.ndarray:
    """Chords with a beat."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    roots = 220 * 2 ** (np.array([0, -2, -4, -2])[(time // 2).astype(int) % 4] / 12)
    chord = sum(np.sin(2 * np.pi * roots * interval * time) for interval in (1, 1.25, 1.5, 2))
    return (0.08 * chord * np.exp(-3 * (time % 0.5))).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    return 0.02 * np.random.default_rng(5).standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def sounds(shared) -> list[np.ndarray]:
    """Real speech, and what lies between speech in recordings."""
    speech = [shared / "jfk.flac", shared / "librispeech" / "1688-142285-0001.flac", SAMPLE]
    return [*map(reader.decode_audio, speech), np.zeros(6 * SAMPLE_RATE, np.float32), music(7), noise(4)]


CLIPS = st.lists(st.floats(0, 40).map(lambda time: round(time, 2)), min_size=2, max_size=6).map(sorted)
OPTIONS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, (0.0, 0.6)]),
        "word_timestamps": st.booleans(),
        "without_timestamps": st.booleans(),
        "condition_on_previous_text": st.booleans(),
        "vad_filter": st.booleans(),
        "chunk_length": st.sampled_from([None, None, 1, 3, 11]),
        "batch_size": st.sampled_from([None, None, 3]),
        "hallucination_silence_threshold": st.sampled_from([None, 1.0]),
        "max_initial_timestamp": st.sampled_from([None, 0.0, 30.0]),
        "no_speech_threshold": st.sampled_from([0.6, None]),
        "prefix": st.sampled_from([None, "And so"]),
    }
)


def check(segments: Sequence[Segment], duration: float, *, words: bool) -> None:
    assert all(0 <= segment.start < segment.end <= duration + ROUNDING for segment in segments)
    assert all(one.end <= other.start + 1e-6 for one, other in pairwise(segments))
    if not words:
        assert all(segment.words is None for segment in segments)
        return
    assert all("".join(word.word for word in segment.words) == segment.text for segment in segments)
    for segment in segments:
        edges = [segment.start, *(edge for word in segment.words for edge in (word.start, word.end)), segment.end]
        assert all(one <= other + 1e-6 for one, other in pairwise(edges))
        assert all(word.end - word.start <= LONGEST_WORD + 0.01 for word in segment.words)


@settings(derandomize=True, max_examples=5)
@given(parts=st.lists(st.integers(0, 5), min_size=1, max_size=5), options=OPTIONS)
def test_segments_and_words_are_in_order_and_in_the_file(engine, sounds, parts, options):
    pytest.importorskip("silero_vad")
    audio = np.concatenate([sounds[part] for part in parts])
    segments, info = engine("tiny.en").transcribe(audio, beam_size=1, best_of=1, **options)
    check(list(segments), info.duration, words=options["word_timestamps"])


@settings(derandomize=True, max_examples=2)
@given(parts=st.permutations(range(6)), options=OPTIONS, clips=CLIPS, backwards=st.booleans())
def test_segments_and_words_are_in_their_clips(engine, sounds, parts, options, clips, backwards):
    pytest.importorskip("silero_vad")
    audio = np.concatenate([sounds[part] for part in parts])
    if len(clips) % 2:
        clips.append(audio.size / SAMPLE_RATE)
    pairs = list(zip(clips[::2], clips[1::2], strict=True))[:: -1 if backwards else 1]
    segments, info = engine("tiny.en").transcribe(
        audio, beam_size=1, best_of=1, clip_timestamps=[{"start": a, "end": b} for a, b in pairs], **options
    )
    found = list(segments)
    inside = [
        [s for s in found if start - ROUNDING <= s.start and s.end <= end + ROUNDING and s.start < end]
        for start, end in pairs
    ]
    assert sum(map(len, inside)) == len(found)
    assert [segment for clip in inside for segment in clip] == found, "clip after clip"
    for segments_of_clip in inside:
        check(segments_of_clip, info.duration, words=options["word_timestamps"])
    assert not any(
        some for some, (a, b) in zip(inside, pairs, strict=True) if b - a < MIN_FRAMES / FRAMES_PER_SECOND - 0.01
    )
