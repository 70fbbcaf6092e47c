"""A synthetic signal with the spectrum of speech, to measure encoder errors without a recording. It has no words.

A gliding pitch and its harmonics, shaped by two moving formants and a fixed one, in four syllables a second with hiss
between them. Rounding errors of the encoder states on it are in the range of real clips: with bf16 everywhere 7.5e-3 to
9.7e-3 on base, and 7.6e-3 to 1.2e-2 on four real clips; on white noise they differed by a factor of up to 3.4.
"""

import numpy as np
import numpy.typing as npt

from tilewhisper.models.constants import SAMPLE_RATE

SECONDS = 11.0
"""A short clip; silence fills the rest of its 30 s window, as for most short files."""


def synthetic_speech(seconds: float = SECONDS) -> npt.NDArray[np.float32]:
    """Samples (n,) at 16 kHz, the same at every call."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE

    def swing(hertz: float, phase: float = 0.0) -> npt.NDArray[np.float64]:
        wave: npt.NDArray[np.float64] = np.sin(2 * np.pi * hertz * t + phase)
        return wave

    pitch = 120.0 * 2.0 ** (0.3 * swing(0.5) + 0.1 * swing(1.7))
    formants = ((500 + 250 * swing(1.1), 150, 1.0), (1500 + 600 * swing(0.7, 1.0), 200, 0.5), (2600.0, 300, 0.2))
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    voice = np.zeros_like(t)
    for harmonic in range(1, 30):
        level = sum(gain * np.exp(-(((harmonic * pitch - at) / width) ** 2)) for at, width, gain in formants)
        voice += (level + 0.02) / np.sqrt(harmonic) * np.sin(2 * np.pi * harmonic * cycles)
    noise = np.random.default_rng(0).standard_normal(len(t))
    syllables = swing(2.0)
    pauses = swing(0.25) > -0.7
    sound = voice * np.sqrt(syllables.clip(0)) * pauses + noise * (0.15 * syllables.clip(None, 0) ** 4 + 1e-3)
    return np.asarray(0.3 * sound / np.abs(sound).max(), dtype=np.float32)
