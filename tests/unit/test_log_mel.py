"""Log-mel spectrograms: equal to transformers' extractor, complete windows at any seek, the same in pieces."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from tilewhisper.models.audio import spill
from tilewhisper.models.audio.log_mel import LogMel, content_frames, log_mel, window
from tilewhisper.models.constants import FRAMES_PER_WINDOW, WINDOW_SAMPLES
from tilewhisper.models.mel_filters import mel_filters


def noise(samples: int, scale: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, samples).astype(np.float32)


def extractor(n_mels: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=n_mels)


def extracted(samples: np.ndarray, n_mels: int, **options: object) -> torch.Tensor:
    return extractor(n_mels)(samples, sampling_rate=16_000, return_tensors="pt", **options).input_features[0]


@pytest.mark.slow
@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_equal_transformers(n_mels: int) -> None:
    theirs = torch.from_numpy(extractor(n_mels).mel_filters).float().T
    # Both are computed in float64, with formulas that may differ in the last bit before rounding to float32.
    torch.testing.assert_close(mel_filters(n_mels), theirs, rtol=2**-23, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize(
    "samples",
    [
        noise(16_000),
        noise(123_457),
        noise(1_600, scale=1e-4),
        noise(WINDOW_SAMPLES),
        noise(WINDOW_SAMPLES - 30),  # the mirror image at 30 s has audio in it
        np.zeros(16_000, np.float32),
        np.sin(np.arange(48_000) * 0.3).astype(np.float32),
    ],
    ids=["1s", "odd", "quiet", "30s", "almost 30s", "silence", "tone"],
)
def test_a_window_equals_transformers(samples: np.ndarray, n_mels: int) -> None:
    mel = log_mel(samples, n_mels)
    assert mel.shape == (n_mels, FRAMES_PER_WINDOW) and mel.dtype == torch.float32
    # Bit-equal with torch 2.13 on x86-64. Another FFT or matmul may sum in another order: a float32 sum of 201 terms
    # has a relative error of 201 * 2**-24 in power, which moves (log10 + 4) / 4 by 1.3e-6 at most.
    torch.testing.assert_close(mel, extracted(samples, n_mels), rtol=0, atol=2e-6)


@pytest.mark.slow
def test_long_audio_equals_transformers_over_the_whole_file() -> None:
    samples = np.concatenate([noise(500_000, 0.001), noise(300_000, 0.3, seed=1), noise(100_123, 1e-6, seed=2)])
    theirs = extracted(samples, 80, truncation=False, padding="longest")
    # The last two frames reach past the end: into zeros here, into a mirror image in transformers.
    inside = len(samples) // 160 - 2
    torch.testing.assert_close(log_mel(samples)[:, :inside], theirs[:, :inside], rtol=0, atol=2e-6)


@pytest.mark.parametrize("samples", [WINDOW_SAMPLES + 1, 500_000, 500_001, 500_159])
def test_every_window_of_long_audio_is_complete_and_ends_in_silence(samples: int) -> None:
    audio = noise(samples)
    mel = log_mel(audio)
    last = content_frames(samples) - 1
    assert mel[:, last : last + FRAMES_PER_WINDOW].shape == (80, FRAMES_PER_WINDOW)
    # Silence is what zeros give in the same file.
    silent = log_mel(np.concatenate([audio, np.zeros(WINDOW_SAMPLES, np.float32)]))[:, -100:]
    past = mel[:, last + 4 :]
    assert torch.equal(past, silent[:, :1].expand_as(past))


@pytest.mark.parametrize("scale", [0.1, 1e-7])  # the loudest frame sets the floor; the minimum power does
def test_window_past_the_end_is_silence(scale: float) -> None:
    audio = noise(200_000, scale)
    mel, seek = log_mel(audio), 1000
    whole = log_mel(np.concatenate([audio, np.zeros(2 * WINDOW_SAMPLES, np.float32)]))
    assert window(mel, seek).shape == (80, FRAMES_PER_WINDOW)
    torch.testing.assert_close(window(mel, seek), whole[:, seek : seek + FRAMES_PER_WINDOW], rtol=0, atol=5e-7)
    assert torch.equal(window(mel, 0), mel)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (159, 0), (160, 1), (319, 1), (WINDOW_SAMPLES, 3000)])
def test_content_frames(samples: int, frames: int) -> None:
    assert content_frames(samples) == frames


def streamed(samples: np.ndarray, piece: int) -> LogMel:
    mel = LogMel()
    for first in range(0, len(samples), piece):
        mel.append(samples[first : first + piece])
    mel.finish()
    return mel


@lru_cache
def loudest_at_the_end(samples: int) -> tuple[np.ndarray, torch.Tensor]:
    """Noise whose last frame is the loudest, and its log-mel spectrogram."""
    audio = noise(samples, scale=0.001)
    audio[-2_000:] *= 1000
    return audio, log_mel(audio)


@pytest.mark.parametrize("samples", [20_000, WINDOW_SAMPLES - 30, WINDOW_SAMPLES, WINDOW_SAMPLES + 1, 1_000_123])
@pytest.mark.parametrize("piece", [1_000, 65_536, WINDOW_SAMPLES + 160, 2_000_000])
def test_pieces_of_any_size_make_the_same_windows(samples: int, piece: int) -> None:
    audio, whole = loudest_at_the_end(samples)
    mel = streamed(audio, piece)
    assert mel.samples == samples and mel.content_frames == content_frames(samples)
    for seek in (0, 60, content_frames(samples) - 1, 0):  # backwards too
        content = min(content_frames(samples) - seek, FRAMES_PER_WINDOW)
        assert torch.equal(mel.window(seek)[:, :content], window(whole, seek)[:, :content])
        assert not mel.window(seek)[:, content:].any()


def test_a_window_with_fewer_frames_ends_in_zeros() -> None:
    audio = noise(WINDOW_SAMPLES)
    mel = streamed(audio, 100_000)
    cut = mel.window(500, 700)
    assert torch.equal(cut[:, :700], log_mel(audio)[:, 500:1_200])
    assert not cut[:, 700:].any()
    assert torch.equal(mel.window(0, 10_000), mel.window(0))


def test_frames_spilled_to_disk_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = noise(3 * WINDOW_SAMPLES)
    in_memory = streamed(audio, 65_536)
    monkeypatch.setattr(spill, "MEMORY_BYTES", 2_000)
    spilled = streamed(audio, 65_536)
    for seek in (0, 2_999, 8_999, 17):
        assert torch.equal(spilled.window(seek), in_memory.window(seek))


def test_the_samples_are_not_modified() -> None:
    samples = noise(16_000)
    samples.setflags(write=False)
    log_mel(samples)
