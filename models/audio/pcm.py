"""Raw PCM as it arrives in pieces of any size: 16 kHz mono samples."""

from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from tilewhisper.models.audio.recording import Samples, to_float32, to_mono
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

RATES = (4_000, 384_000)
"""Lowest and highest sample rate, in Hz."""
MAX_CHANNELS = 32
_WIDTHS: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype("<i2"), 4: np.dtype("<i4")}
"""Bytes of a sample -> its type: little-endian and signed, but unsigned in one byte, as in WAV files."""


class PcmStream:
    """Converts interleaved little-endian integers to 16 kHz mono float32."""

    def __init__(self, rate: int, width: int = 2, channels: int = 1) -> None:
        """`rate` in Hz, `width` in bytes of a sample. Raises AudioError for a format that is not supported."""
        if not RATES[0] <= rate <= RATES[1]:
            raise AudioError(f"rate must be {RATES[0]} to {RATES[1]} Hz, got {rate}")
        if width not in (*_WIDTHS, 3):
            raise AudioError(f"width must be 1, 2, 3 or 4 bytes, got {width}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(f"channels must be 1 to {MAX_CHANNELS}, got {channels}")
        self._width, self._channels = width, channels
        self._resampler = (
            None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        )

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self._width * self._channels

    def feed(self, data: bytes) -> Samples:
        """The samples that are ready after `data`, which holds whole samples of all channels. Raises AudioError."""
        if len(data) % self.frame_bytes:
            raise AudioError(
                f"the audio must hold whole samples of {self.frame_bytes} bytes, got {len(data)} bytes; "
                "check the format and send the rest with the next piece"
            )
        return self._resampled(self._mono(data), last=False)

    def finish(self) -> Samples:
        """The last samples, which wait in the resampler."""
        return self._resampled(np.zeros(0, np.float32), last=True)

    def _mono(self, data: bytes) -> Samples:
        values: npt.NDArray[Any]
        if self._width == 3:
            high = np.zeros((len(data) // 3, 4), np.uint8)  # the sample in the upper three bytes of four
            high[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = high.reshape(-1).view("<i4")
        else:
            values = np.frombuffer(data, _WIDTHS[self._width])
        return to_mono(to_float32(values).reshape(-1, self._channels))

    def _resampled(self, samples: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return samples
        resampled: Samples = self._resampler.resample_chunk(samples, last=last)
        return resampled
