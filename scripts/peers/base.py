"""A peer's interface: its setup and its transcripts, as plain data that can be sent between processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", int, float)


class PeerError(Exception):
    """A peer is not installed, its weights cannot be converted, or it failed."""


@dataclass(frozen=True)
class Setup:
    """How to load a peer. `module` has a class `Peer`; `weights` is a file, a folder or a model's name."""

    module: str
    weights: str
    threads: int
    language: str
    options: dict[str, Any]
    beam_size: int = 1
    """1 is greedy."""


@dataclass(frozen=True)
class Transcript:
    """A peer's result for one recording; None is a figure that the peer does not report."""

    text: str
    spans: list[tuple[float, float]]
    """(start, end) of each segment, in seconds."""
    tokens: int | None = None
    """Number of tokens in the segments, timestamps included."""
    decode_seconds: float | None = None
    """All time after the encoder."""
    step_seconds: float | None = None
    """The part of it in decode steps, without prompts and cross-attention K/V. A batch step that processes prompts and
    next tokens is divided in proportion to their tokens."""


def check_greedy(setup: Setup) -> None:
    """Raises PeerError, for a peer that decodes greedily only."""
    if setup.beam_size > 1:
        raise PeerError("decodes greedily here, not with beams")


def joined(transcripts: Sequence[Transcript]) -> Transcript:
    """Join the transcripts of several recordings, without spans, since each recording starts at 0."""
    return Transcript(
        " ".join(transcript.text.strip() for transcript in transcripts),
        [],
        total(transcript.tokens for transcript in transcripts),
        total(transcript.decode_seconds for transcript in transcripts),
        total(transcript.step_seconds for transcript in transcripts),
    )


def total(values: Iterable[Number | None]) -> Number | None:
    """Sum the values; None where any is None."""
    every = list(values)
    known = [value for value in every if value is not None]
    return sum(known) if len(known) == len(every) else None


class Peer(Protocol):
    """An engine. If it can batch several recordings, it also has `transcribe_many`, which returns a Transcript each."""

    def __init__(self, setup: Setup) -> None: ...

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        """Transcribe samples (n,) at 16 kHz: with the setup's beams and timestamps, without temperature fallback."""
        ...
