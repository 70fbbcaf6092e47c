"""Raw PCM in pieces: every width and rate, against the whole at once."""

import numpy as np
import pytest
import soxr

from tilewhisper.models.audio.pcm import PcmStream
from tilewhisper.models.errors import AudioError

WAVE = (0.5 * np.sin(np.arange(4800) / 20)).astype(np.float32)


def raw(width: int) -> bytes:
    if width == 1:
        return (WAVE * 128 + 128).astype(np.uint8).tobytes()
    integers = (WAVE.astype(np.float64) * 2**31).astype("<i4").reshape(-1, 1).view(np.uint8)
    return integers[:, 4 - width :].tobytes()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width(width):
    np.testing.assert_allclose(PcmStream(16_000, width).feed(raw(width)), WAVE, atol=2 / 2 ** (8 * width))


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_pieces_give_the_samples_of_the_whole(rate):
    stream, data = PcmStream(rate), raw(2)
    pieces = [stream.feed(data[first : first + 962]) for first in range(0, len(data), 962)]
    whole = soxr.resample(np.frombuffer(data, "<i2").astype(np.float32) / 32768, rate, 16_000)
    np.testing.assert_allclose(np.concatenate([*pieces, stream.finish()]), whole, atol=1e-6)


def test_channels_are_averaged():
    pairs = np.array([[100, 300], [-200, 200]], "<i2")
    assert (PcmStream(16_000, 2, 2).feed(pairs.tobytes()) * 32768).tolist() == [200, 0]


@pytest.mark.parametrize("form", [(0, 2, 1), (16_000, 5, 1), (16_000, 2, 0), (10**7, 2, 1)])
def test_formats_that_are_refused(form):
    with pytest.raises(AudioError, match="must be"):
        PcmStream(*form)


def test_half_a_sample_is_refused():
    with pytest.raises(AudioError, match="whole samples of 4 bytes, got 6"):
        PcmStream(16_000, 2, 2).feed(bytes(6))
