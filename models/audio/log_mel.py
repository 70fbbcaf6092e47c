"""Whisper's log-mel spectrogram: samples (16 kHz, float32) to (n_mels, frames) float32, equal to transformers'.

A frame is 10 ms: frame t is centred on sample 160 t and sees 400 samples. The loudest frame of the whole audio sets the
floor of all, as in openai-whisper, so no frame is final before the last sample is there. Until then they lie in a
`Spool`: however long the audio, some windows' worth of memory is in use.
Knows torch and arithmetic only: neither transformers nor librosa, whose imports cost 1 to 2 s at every start.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilewhisper.models.audio.recording import Samples, join
from tilewhisper.models.audio.spill import Spool
from tilewhisper.models.constants import FRAMES_PER_WINDOW, HOP_LENGTH, N_FFT, SAMPLE_RATE

SEEN_PAST_END = N_FFT // 2 - HOP_LENGTH  # samples the last frame of a window sees past it
WINDOW_SAMPLES = FRAMES_PER_WINDOW * HOP_LENGTH

POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades of power below the loudest bin; quieter is cut off

# Kept back for the last block, so that it is never a few frames: a product of some columns sums in another order than
# that of many, and the result would hang, in its last bit, on how the audio is cut into pieces.
HELD_SAMPLES = SAMPLE_RATE


class LogMel:
    """The log-mel spectrogram of audio that comes in pieces, read back in windows.

    Append all the audio, `finish`, then ask for windows, in any order.
    """

    def __init__(self, n_mels: int = 80) -> None:
        self.n_mels = n_mels
        self.samples = 0
        self._frames = Spool(n_mels)  # log10 of the mel powers, frame by frame
        self._loudest = _SILENCE
        self._pending: list[Samples] = []  # what frames yet to come see
        self._pending_samples = 0

    @property
    def content_frames(self) -> int:
        """Whole frames of audio so far."""
        return content_frames(self.samples)

    def append(self, samples: Samples) -> None:
        """Take the next samples, (n,), however many."""
        self.samples += len(samples)
        for first in range(0, len(samples), WINDOW_SAMPLES):
            self._take(samples[first : first + WINDOW_SAMPLES])
            if self._pending_samples >= WINDOW_SAMPLES:
                span = self._span()
                self._compute(span[:-HELD_SAMPLES], rest=span[-HELD_SAMPLES:])

    def finish(self) -> None:
        """There are no more samples."""
        padded = WINDOW_SAMPLES if self.samples <= WINDOW_SAMPLES else self.samples + WINDOW_SAMPLES
        self._take(np.zeros(min(N_FFT, padded - self.samples), np.float32))
        span = self._span()
        if self.samples + N_FFT > padded:  # the window's last frame sees past its end: a mirror image
            span = join((span, span[-2 : -2 - SEEN_PAST_END : -1]))
        self._compute(span, rest=span[:0])

    def window(self, seek: int, frames: int = FRAMES_PER_WINDOW) -> Tensor:
        """A whole window, (n_mels, 3000): at most `frames` frames of content from frame `seek` on, then zeros.

        Zeros are what openai-whisper and faster-whisper fill up with, louder than silence; tokens depend on it.
        """
        last = max(seek, min(seek + min(frames, FRAMES_PER_WINDOW), self.content_frames))
        return torch.nn.functional.pad(self.frames(seek, last, last - seek), (0, FRAMES_PER_WINDOW - (last - seek)))

    def frames(self, first: int, last: int, total: int) -> Tensor:
        """Frames first..last-1 followed by what zeros would give after this audio, (n_mels, total)."""
        audible = torch.from_numpy(self._frames.read(first, last)).T
        mel = torch.full((self.n_mels, total), _SILENCE)
        mel[:, : audible.shape[1]] = audible
        return mel.clamp_(min=self._loudest - DYNAMIC_RANGE).add_(4.0).div_(4.0)

    def _take(self, samples: Samples) -> None:
        self._pending.append(samples)
        self._pending_samples += len(samples)

    def _span(self) -> Samples:
        span = join(self._pending)
        # The first frame sees a mirror image of what follows sample 0.
        return span if len(self._frames) else join((span[N_FFT // 2 : 0 : -1], span))

    def _compute(self, span: Samples, rest: Samples) -> None:
        """The frames that see nothing but `span`, whose first sample is the first that the next frame sees."""
        count = (len(span) - N_FFT) // HOP_LENGTH + 1
        seen = torch.from_numpy(span[: (count - 1) * HOP_LENGTH + N_FFT])
        spectrum = torch.stft(seen, N_FFT, HOP_LENGTH, window=_hann(), center=False, return_complex=True)
        power = spectrum.abs() ** 2  # (201, count)
        mel = (mel_filters(self.n_mels) @ power).clamp_(min=POWER_FLOOR).log10_()
        self._loudest = max(self._loudest, float(mel.max()))
        self._frames.append(mel.T.numpy())
        self._pending, self._pending_samples = [], 0
        self._take(span[count * HOP_LENGTH :])
        self._take(rest)


def log_mel(samples: Samples, n_mels: int = 80) -> Tensor:
    """Log-mel spectrogram of `samples`, (samples,), as (n_mels, frames) float32.

    Up to 30 s: followed by zeros to 30 s, 3000 frames. Longer: followed by 30 s of zeros, so that every window
    `mel[:, seek : seek + 3000]` that starts on content (`content_frames`) is whole and ends in silence; see `window`.
    """
    mel = LogMel(n_mels)
    mel.append(samples)
    mel.finish()
    total = WINDOW_SAMPLES if len(samples) <= WINDOW_SAMPLES else len(samples) + WINDOW_SAMPLES
    return mel.frames(0, total // HOP_LENGTH, total // HOP_LENGTH)


def content_frames(samples: int) -> int:
    """Whole frames: what openai-whisper counts as content."""
    return samples // HOP_LENGTH


def window(mel: Tensor, seek: int) -> Tensor:
    """The 3000 frames of `mel`, (n_mels, frames), from frame `seek` on; frames past its end are silence.

    A view where they are all there. Silence is the floor that `log_mel` gives to zeros after this audio, not 0.
    """
    part = mel[:, seek : seek + FRAMES_PER_WINDOW]
    missing = FRAMES_PER_WINDOW - part.shape[1]
    if not missing:
        return part
    silence = max(float(mel.max()) - DYNAMIC_RANGE / 4.0, (np.log10(POWER_FLOOR) + 4.0) / 4.0)
    return torch.nn.functional.pad(part, (0, missing), value=silence)


_SILENCE = float(torch.tensor(POWER_FLOOR).log10())


@lru_cache
def _hann() -> Tensor:
    return torch.hann_window(N_FFT)


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
