"""The recordings of a comparison: clips on their own, all at once, joined to one recording, or of several lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from clips import Samples, end_of_speech, join, read_clips
from comparison import Recording

from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE

JOINED_FROM = 20.0
"""Seconds of a length from which clips are joined: a shorter one is the clip that comes nearest to it."""


@dataclass(frozen=True)
class Speech:
    """Samples (n,) at 16 kHz and what is said in them."""

    name: str
    samples: Samples
    reference: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def speeches(folder: Path, clips: int | None) -> list[Speech]:
    """The first `clips` clips of a folder, decoded. Raises as `read_clips` does, and AudioError."""
    return [
        Speech(clip.file.name, reader.decode_audio(clip.file), clip.reference) for clip in read_clips(folder)[:clips]
    ]


def joined(clips: Sequence[Speech], seconds: float) -> Speech:
    """Clips joined to one recording of at most `seconds`, from the first one again after the last."""
    enough = int(seconds / min(clip.seconds for clip in clips)) + 1
    repeated = list(islice(cycle(clips), enough))
    samples, used = join([clip.samples for clip in repeated], seconds)
    return Speech(f"{used} clips joined", samples, " ".join(clip.reference for clip in repeated[:used]))


def of_lengths(clips: Sequence[Speech], lengths: Sequence[float]) -> Iterator[Speech]:
    """One recording for each length in seconds, of whole clips, so that their words are known."""
    for length in lengths:
        if length < JOINED_FROM:
            yield min(clips, key=lambda clip: abs(clip.seconds - length))
        else:
            yield joined(clips, length)


def saved(recordings: Sequence[Speech], folder: Path) -> list[Recording]:
    """Write the samples where the contenders' processes read them."""
    found = []
    for number, speech in enumerate(recordings):
        path = folder / f"{number:06}.npy"
        np.save(path, speech.samples)
        end, seconds = end_of_speech(speech.samples), speech.seconds
        found.append(Recording(speech.name, path, seconds, speech.reference, end, longest=seconds))
    return found


def all_at_once(recordings: Sequence[Recording], folder: Path) -> Recording:
    """The recordings in `folder` as one, to be submitted together."""
    seconds = sum(recording.seconds for recording in recordings)
    reference = " ".join(recording.reference for recording in recordings)
    longest = max(recording.longest for recording in recordings)
    return Recording(f"{len(recordings)} clips at once", folder, seconds, reference, seconds, longest)
