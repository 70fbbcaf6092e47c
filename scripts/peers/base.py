"""What a peer is given and what it answers. Plain data, so that it can cross from one process to another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", int, float)


class PeerError(Exception):
    """A peer that is not installed, whose weights cannot be made, or that failed."""


@dataclass(frozen=True)
class Setup:
    """How a peer is to be opened. `module` has a class `Peer`; `weights` is a file, a folder or a model's name."""

    module: str
    weights: str
    threads: int
    language: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Transcript:
    """`spans` are the segments' (start, end) in seconds; `tokens` counts theirs, timestamps included. The rest is None
    where the peer does not tell it."""

    text: str
    spans: list[tuple[float, float]]
    tokens: int | None = None
    decode_seconds: float | None = None
    """All that comes after the encoder."""
    step_seconds: float | None = None
    """Of these, what the tokens took one after the other, without prompts and a window's keys and values. A step that
    reads both is told apart by its tokens."""


def joined(transcripts: Sequence[Transcript]) -> Transcript:
    """Of several recordings: no spans, since each has its own time."""
    return Transcript(
        " ".join(one.text.strip() for one in transcripts),
        [],
        total(one.tokens for one in transcripts),
        total(one.decode_seconds for one in transcripts),
        total(one.step_seconds for one in transcripts),
    )


def total(values: Iterable[Number | None]) -> Number | None:
    """None where one is."""
    every = list(values)
    known = [value for value in every if value is not None]
    return sum(known) if len(known) == len(every) else None


class Peer(Protocol):
    """One that does better with several recordings at once has `transcribe_many`, too: a Transcript for each."""

    def __init__(self, setup: Setup) -> None: ...

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        """Samples (n,) at 16 kHz to text: greedily, with timestamps, without a second try at another temperature."""
        ...
