"""What a decoder hands to `audio`: one channel at the file's own rate, in blocks, and the rules every decoder shares.

Samples are float32, (samples,), full scale at ±1. Knows neither containers nor the rate Whisper wants.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.models.errors import AudioError

Samples = npt.NDArray[np.float32]

# Encoder delay and padding make headers and decoders disagree by a codec frame or two: the longest in use, HE-AAC's
# 2048 samples at 16 kHz, is 0.128 s.
TRUNCATION_SLACK_SECONDS = 0.25


@dataclass(frozen=True)
class Block:
    """The next samples of a decoded audio track, its channels averaged."""

    samples: Samples  # (samples,)
    rate: int  # Hz; one for the whole track


def to_float32(samples: npt.NDArray[Any]) -> Samples:
    """The same samples as native float32, any shape; integers scaled by their type's full scale, floats as they are.

    Returns the input itself where it is contiguous float32 already. Raises `TypeError` for any other type: an int64
    says nothing about its full scale.
    """
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is refused by name later
            return np.ascontiguousarray(samples, dtype=np.float32)
    if kind == "i" and bits <= 32:
        return samples.astype(np.float32) / np.float32(2 ** (bits - 1))
    if kind == "u" and bits == 8:  # the one unsigned PCM type in use: silence is 128
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    raise TypeError(f"samples of type {samples.dtype}")


def to_mono(block: Samples) -> Samples:
    """(samples, channels) to (samples,), the mean over channels."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is refused by name later
        mono: Samples = block.mean(axis=1, dtype=np.float32)
    return mono


def join(blocks: Iterable[Samples]) -> Samples:
    """Blocks in order as one array; no blocks make an empty one."""
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


def refuse_truncated(name: str, stated_seconds: float, read_seconds: float) -> None:
    """Raise `AudioError` where a header states clearly more audio than could be read."""
    if stated_seconds - read_seconds > TRUNCATION_SLACK_SECONDS:
        raise AudioError(
            f"{name}: truncated or damaged: its header says {stated_seconds:.1f} s, {read_seconds:.1f} s could be "
            "read; copy or export the file again"
        )
