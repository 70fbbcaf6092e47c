"""Read folders of clips with reference transcripts, and join clips into one long recording.

A folder of clips holds audio files and a tab-separated `transcripts.tsv` with the columns `file` and `reference`, and
optionally `language` (default: English).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilewhisper.models.constants import SAMPLE_RATE

Samples = npt.NDArray[np.float32]

GAP_SECONDS = 0.5
LONG_SECONDS = 300.0
"""Length of the long recording that the benchmarks join from clips."""
_FRAME = SAMPLE_RATE // 50  # 20 ms
_SILENCE_LEVEL = 10 ** (-40 / 20)  # relative to the loudest frame: 40 dB below it


@dataclass(frozen=True)
class Clip:
    """An audio file, its reference transcript and its language."""

    file: Path
    reference: str
    language: str = "en"
    """A code or an English name."""


def read_clips(folder: Path) -> list[Clip]:
    """Read the clips of a folder in the order of its table.

    Raises OSError where the table or a clip is missing, and ValueError where the table is malformed.
    """
    table = folder / "transcripts.tsv"
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"file", "reference"} <= rows[0].keys():
        raise ValueError(f"{table}: expected the tab-separated columns `file` and `reference`, and at least one clip")
    if any(not (row["file"] and row["reference"]) for row in rows):
        raise ValueError(f"{table}: every row needs a file and a reference")
    clips = [Clip(folder / row["file"], row["reference"], row.get("language") or "en") for row in rows]
    if missing := [clip.file for clip in clips if not clip.file.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: listed in {table.name}, but missing")
    return clips


def join(recordings: Sequence[Samples], seconds: float) -> tuple[Samples, int]:
    """Join as many whole recordings, first to last, as fit into `seconds`, with 0.5 s of silence between them.

    Returns the joined samples and the number of recordings used, which is at least 1.
    """
    gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE), np.float32)
    joined, used = [recordings[0]], 1
    length = len(recordings[0])
    for samples in recordings[1:]:
        length += len(gap) + len(samples)
        if length > seconds * SAMPLE_RATE:
            break
        joined += [gap, samples]
        used += 1
    return np.concatenate(joined), used


def end_of_speech(samples: Samples) -> float:
    """Seconds up to the end of the last 20 ms frame whose level is within 40 dB of the loudest frame's."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level = np.sqrt((frames**2).mean(axis=1))
    return float((np.flatnonzero(level > _SILENCE_LEVEL * level.max())[-1] + 1) * _FRAME / SAMPLE_RATE)
