"""The language of a file: which windows are looked at, and which of them decides."""

import pytest

from tilewhisper.engine.decoding.language import DetectedLanguage
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.file_language import choose_language, windows_of
from tilewhisper.engine.pipeline.segmenter import Clip


def window(code, probability, no_speech_prob=0.01):
    return DetectedLanguage({code: probability, "xx": 1 - probability}, no_speech_prob)


def chosen(*windows, **options):
    """The chosen window's number, and how many windows were detected."""
    detected = []

    def one_by_one():
        for window in windows:
            detected.append(window)
            yield window

    return windows.index(choose_language(one_by_one(), TranscriptionOptions(**options))), len(detected)


@pytest.mark.parametrize("probability", [0.9, 0.2])
def test_a_first_window_with_speech_decides_alone(probability):
    assert chosen(window("en", probability), window("de", 0.99)) == (0, 1)


def test_windows_without_speech_are_passed_over():
    noise = window("nn", 0.62, 0.98)
    assert chosen(noise, noise, window("de", 0.3, 0.6), window("fr", 0.9)) == (2, 3)


def test_without_speech_the_window_most_like_speech_is_the_guess():
    assert chosen(window("nn", 0.6, 0.99), window("vi", 0.7, 0.7), window("en", 0.4, 0.9)) == (1, 3)


def test_without_a_threshold_every_window_counts_as_speech():
    assert chosen(window("nn", 0.6, 0.99), window("de", 0.9), no_speech_threshold=None) == (0, 1)
    assert chosen(window("nn", 0.6, 0.7), window("de", 0.9), no_speech_threshold=0.8) == (0, 1)


def test_silent_windows_do_not_count_among_the_segments():
    options = {"language_detection_segments": 3, "language_detection_threshold": 0.8}
    silence = window("en", 0.9, 0.95)
    windows = (silence, window("de", 0.5), silence, window("nl", 0.7), window("de", 0.6), window("nl", 0.9))
    assert chosen(*windows, **options) == (4, 5)
    assert chosen(silence, window("de", 0.5), window("nl", 0.8), **options) == (2, 3)


@pytest.mark.parametrize(
    ("clips", "frames", "windows"),
    [
        ([(0, 700)], 700, [(0, 700)]),
        ([(0, 7000)], 7000, [(0, 3000), (3000, 6000), (6000, 7000)]),
        ([(500, 900)], 7000, [(500, 3500)]),
        ([(500, 900), (1000, 4000), (6500, 7000)], 7000, [(500, 3500), (3500, 6500), (6500, 7000)]),
        ([(0, 0)], 0, [(0, 0)]),
        ([], 400, [(0, 400)]),
        ([(900, 900)], 900, [(900, 900)]),
    ],
)
def test_the_windows_follow_the_clips_without_overlap(clips, frames, windows):
    found = list(windows_of([Clip(*clip) for clip in clips], frames))
    assert [(clip.first, clip.last) for clip in found] == windows
