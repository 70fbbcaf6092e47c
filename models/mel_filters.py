"""Whisper's mel filters: from the spectrum of a frame to its mel bins."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from tilewhisper.models.constants import N_FFT, SAMPLE_RATE


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
