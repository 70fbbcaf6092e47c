"""Bit fields of 32-bit words: values packed into words and back, without loss in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tilewhisper.kernels.base import KernelError

WORD_BITS = 32


class StreamError(KernelError):
    """An instruction stream that cannot be written or is not one; the message names the place and the values."""


class Field(NamedTuple):
    word: int
    high: int
    """Highest bit, included."""
    low: int


Layout = Mapping[str, Field]


def pack(layout: Layout, values: Mapping[str, int], words: int = 1) -> tuple[int, ...]:
    """Words with these values and 0 in every other field. Raises StreamError if a value does not fit its bits."""
    packed = [0] * words
    for name, value in values.items():
        word, high, low = layout[name]
        if value not in range(limit := 1 << (high - low + 1)):
            raise StreamError(f"{name.replace('_', ' ')} is {value:,}, and its field holds 0 to {limit - 1:,}")
        packed[word] |= value << low
    return tuple(packed)


def unpack(layout: Layout, words: Sequence[int]) -> dict[str, int]:
    """The value of every field. Bits outside the layout are ignored: compare `pack` of the result to find them."""
    return {
        name: words[word] >> low & (1 << (high - low + 1)) - 1 for name, (word, high, low) in layout.items()
    }  # fmt: skip
