"""Whisper's log-mel spectrogram: samples (16 kHz, float32) to (n_mels, frames) float32, equal to transformers'.

A frame is 10 ms: frame t is centred on sample 160 t and covers 400 samples. As in openai-whisper, the loudest frame of
the whole audio sets the floor of all frames, so no frame is final before the last sample. Until then the frames wait in
a `SpillBuffer`, which keeps memory constant for audio of any length.
Uses torch only: importing transformers or librosa would cost 1 to 2 s at every start.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tilewhisper.models.audio.recording import Samples, join
from tilewhisper.models.audio.spill import SpillBuffer
from tilewhisper.models.constants import FRAMES_PER_WINDOW, HOP_LENGTH, N_FFT, SAMPLE_RATE, WINDOW_SAMPLES
from tilewhisper.models.mel_filters import mel_filters

OVERHANG_SAMPLES = N_FFT // 2 - HOP_LENGTH  # samples past the window's end that its last frame covers

POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades of power below the loudest bin; quieter bins are raised to that floor

# Withheld for the next block, so that the last block never has only a few frames: a matrix product with few columns
# sums in another order, and the last bit of the result would depend on how the audio is cut into pieces.
WITHHELD_SAMPLES = SAMPLE_RATE


class LogMel:
    """The log-mel spectrogram of audio that arrives in pieces, read back in windows.

    Append all audio, call `finish`, then read windows in any order.
    """

    def __init__(self, n_mels: int = 80) -> None:
        self.n_mels = n_mels
        self.samples = 0
        self._frames = SpillBuffer(n_mels)  # log10 of the mel powers, frame by frame
        self._loudest = _SILENCE
        self._pending: list[Samples] = []  # samples that later frames still need
        self._pending_samples = 0

    @property
    def content_frames(self) -> int:
        """Number of whole frames of audio so far."""
        return content_frames(self.samples)

    def append(self, samples: Samples) -> None:
        """Append samples, (n,), of any number."""
        self.samples += len(samples)
        for first in range(0, len(samples), WINDOW_SAMPLES):
            self._buffer(samples[first : first + WINDOW_SAMPLES])
            if self._pending_samples >= WINDOW_SAMPLES:
                pending = self._joined()
                self._compute(pending[:-WITHHELD_SAMPLES], rest=pending[-WITHHELD_SAMPLES:])

    def finish(self) -> None:
        """Compute the last frames; no samples may be appended after that."""
        padded = WINDOW_SAMPLES if self.samples <= WINDOW_SAMPLES else self.samples + WINDOW_SAMPLES
        self._buffer(np.zeros(min(N_FFT, padded - self.samples), np.float32))
        pending = self._joined()
        if self.samples + N_FFT > padded:  # the window's last frame reaches past its end, into a mirror image
            pending = join((pending, pending[-2 : -2 - OVERHANG_SAMPLES : -1]))
        self._compute(pending, rest=pending[:0])

    def window(self, seek: int, frames: int = FRAMES_PER_WINDOW) -> Tensor:
        """A window, (n_mels, 3000): at most `frames` frames of content from frame `seek` on, padded with zeros.

        openai-whisper and faster-whisper pad with zeros too, which is louder than silence; tokens depend on it.
        """
        last = max(seek, min(seek + min(frames, FRAMES_PER_WINDOW), self.content_frames))
        return torch.nn.functional.pad(self.frames(seek, last, last - seek), (0, FRAMES_PER_WINDOW - (last - seek)))

    def frames(self, first: int, last: int, total: int) -> Tensor:
        """Frames first..last-1, padded to (n_mels, total) with the frames that silence after this audio gives."""
        audible = torch.from_numpy(self._frames.read(first, last)).T
        mel = torch.full((self.n_mels, total), _SILENCE)
        mel[:, : audible.shape[1]] = audible
        return mel.clamp_(min=self._loudest - DYNAMIC_RANGE).add_(4.0).div_(4.0)

    def _buffer(self, samples: Samples) -> None:
        self._pending.append(samples)
        self._pending_samples += len(samples)

    def _joined(self) -> Samples:
        pending = join(self._pending)
        # The first frame reaches before sample 0, into a mirror image of the samples that follow.
        return pending if len(self._frames) else join((pending[N_FFT // 2 : 0 : -1], pending))

    def _compute(self, samples: Samples, rest: Samples) -> None:
        """Append all frames that lie within `samples`, which start with the next frame's first sample."""
        count = (len(samples) - N_FFT) // HOP_LENGTH + 1
        covered = torch.from_numpy(samples[: (count - 1) * HOP_LENGTH + N_FFT])
        spectrum = torch.stft(covered, N_FFT, HOP_LENGTH, window=_hann(), center=False, return_complex=True)
        power = spectrum.abs() ** 2  # (201, count)
        mel = (mel_filters(self.n_mels) @ power).clamp_(min=POWER_FLOOR).log10_()
        self._loudest = max(self._loudest, float(mel.max()))
        self._frames.append(mel.T.numpy())
        self._pending, self._pending_samples = [], 0
        self._buffer(samples[count * HOP_LENGTH :])
        self._buffer(rest)


def log_mel(samples: Samples, n_mels: int = 80) -> Tensor:
    """Log-mel spectrogram of `samples`, (samples,), as (n_mels, frames) float32.

    Audio up to 30 s is padded with silence to 30 s, 3000 frames. Longer audio gets 30 s of silence appended, so that
    every window `mel[:, seek : seek + 3000]` that starts on content (`content_frames`) is complete; see `window`.
    """
    mel = LogMel(n_mels)
    mel.append(samples)
    mel.finish()
    total = WINDOW_SAMPLES if len(samples) <= WINDOW_SAMPLES else len(samples) + WINDOW_SAMPLES
    return mel.frames(0, total // HOP_LENGTH, total // HOP_LENGTH)


def content_frames(samples: int) -> int:
    """Number of whole frames in `samples` samples, which openai-whisper counts as content."""
    return samples // HOP_LENGTH


def window(mel: Tensor, seek: int) -> Tensor:
    """The 3000 frames of `mel`, (n_mels, frames), from frame `seek` on, padded with silence past its end.

    Returns a view if no padding is needed. Silence is the floor of `log_mel` in this audio, not 0.
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
