"""Whisper's log-mel spectrogram: samples (16 kHz, float32) to (n_mels, frames) float32, equal to transformers'.

A frame is 10 ms: frame t is centred on sample 160 t and sees 400 samples. Computed a window (30 s) at a time, so the
complex spectra of an hour are never in memory at once; the loudest frame of the whole file sets the floor.
Knows torch and arithmetic only: neither transformers nor librosa, whose imports cost 1 to 2 s at every start.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

SAMPLE_RATE = 16_000  # Hz
N_FFT = 400  # samples a frame sees: 25 ms
HOP_LENGTH = 160  # samples from frame to frame: 10 ms
FRAMES_PER_WINDOW = 3000  # what the encoder takes: 30 s
WINDOW_SAMPLES = FRAMES_PER_WINDOW * HOP_LENGTH
assert WINDOW_SAMPLES == 30 * SAMPLE_RATE

POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades of power below the loudest bin; quieter is cut off


def log_mel(
    samples: npt.NDArray[np.float32], n_mels: int = 80, *, block_frames: int = FRAMES_PER_WINDOW
) -> torch.Tensor:
    """Log-mel spectrogram of `samples`, (samples,), as (n_mels, frames) float32.

    Up to 30 s: followed by zeros to 30 s, 3000 frames. Longer: followed by 30 s of zeros, so that every window
    `mel[:, seek : seek + 3000]` that starts on content (`content_frames`) is whole and ends in silence; see `window`.
    `block_frames` are computed at a time; from 100 on, it changes memory but not one bit of the result.
    """
    total = WINDOW_SAMPLES if len(samples) <= WINDOW_SAMPLES else len(samples) + WINDOW_SAMPLES
    frames = total // HOP_LENGTH
    filters, hann = mel_filters(n_mels), torch.hann_window(N_FFT)
    mel = torch.empty(n_mels, frames)
    for first in range(0, frames, block_frames):
        last = min(first + block_frames, frames)
        span = torch.from_numpy(_span(samples, total, first, last))
        spectrum = torch.stft(span, N_FFT, HOP_LENGTH, window=hann, center=False, return_complex=True)
        power = spectrum.abs() ** 2  # (201, last - first)
        mel[:, first:last] = (filters @ power).clamp_(min=POWER_FLOOR).log10_()
    torch.maximum(mel, mel.max() - DYNAMIC_RANGE, out=mel)
    return mel.add_(4.0).div_(4.0)


def content_frames(samples: int) -> int:
    """Frames whose centre lies in the audio: `samples` / 160, rounded up."""
    return -(-samples // HOP_LENGTH)


def window(mel: torch.Tensor, seek: int) -> torch.Tensor:
    """The 3000 frames of `mel`, (n_mels, frames), from frame `seek` on; frames past its end are silence.

    A view where they are all there. Silence is the floor that `log_mel` gives to zeros after this audio, not 0.
    """
    part = mel[:, seek : seek + FRAMES_PER_WINDOW]
    missing = FRAMES_PER_WINDOW - part.shape[1]
    if not missing:
        return part
    silence = max(float(mel.max()) - DYNAMIC_RANGE / 4.0, (np.log10(POWER_FLOOR) + 4.0) / 4.0)
    return torch.nn.functional.pad(part, (0, missing), value=silence)


def _span(samples: npt.NDArray[np.float32], total: int, first: int, last: int) -> npt.NDArray[np.float32]:
    """The samples that frames first..last-1 see: zeros after the audio, mirrored at both ends of `total`."""
    index = np.abs(np.arange(first * HOP_LENGTH - N_FFT // 2, (last - 1) * HOP_LENGTH + N_FFT // 2))
    index = np.minimum(index, 2 * (total - 1) - index)
    inside = index < len(samples)
    span = np.zeros(len(index), dtype=np.float32)
    span[inside] = samples[index[inside]]
    return span


@lru_cache
def mel_filters(n_mels: int) -> torch.Tensor:
    """Triangular mel filters, (n_mels, 201) float32: Slaney's mel scale (M. Slaney, Auditory Toolbox, 1998) from 0 to
    8 kHz, each of unit area. Computed in float64 and rounded once.
    """
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    widths = np.diff(edges)[:, None]
    slopes = edges[:, None] - bins  # (n_mels + 2, 201)
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    triangles *= 2.0 / (edges[2:] - edges[:-2])[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


# Slaney's scale: linear to 1 kHz (15 mels), logarithmic above (27 mels for a factor of 6.4).
_KNEE_HERTZ, _KNEE_MEL, _MELS_PER_LOG = 1000.0, 15.0, 27.0 / np.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz * _KNEE_MEL / _KNEE_HERTZ
    return float(_KNEE_MEL + np.log(hertz / _KNEE_HERTZ) * _MELS_PER_LOG)


def _mel_to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mel * (_KNEE_HERTZ / _KNEE_MEL)
    return np.where(mel < _KNEE_MEL, linear, _KNEE_HERTZ * np.exp((mel - _KNEE_MEL) / _MELS_PER_LOG))
