"""Clips with what is said in them, and a long recording made of them.

A folder of clips holds audio files and a `transcripts.tsv` with the columns `file` and `reference`, and where they are
not all English `language`.
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
_FRAME = SAMPLE_RATE // 50  # 20 ms
_QUIET = 10 ** (-40 / 20)  # below the loudest frame's level by 40 dB: no speech


@dataclass(frozen=True)
class Clip:
    file: Path
    reference: str
    language: str = "en"
    """Code or English name."""


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder, in its table's order. Raises OSError, also where a clip is not there, and ValueError
    for a table that is none."""
    table = folder / "transcripts.tsv"
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"file", "reference"} <= rows[0].keys():
        raise ValueError(f"{table}: expected columns `file` and `reference`, tab-separated, and a clip or more")
    if any(not (row["file"] and row["reference"]) for row in rows):
        raise ValueError(f"{table}: a row has no file or no reference")
    clips = [Clip(folder / row["file"], row["reference"], row.get("language") or "en") for row in rows]
    if absent := [clip.file for clip in clips if not clip.file.is_file()]:
        raise FileNotFoundError(f"{absent[0]}: named in {table.name}, and not there")
    return clips


def join(recordings: Sequence[Samples], seconds: float) -> tuple[Samples, int]:
    """As many whole recordings, from the first on, as fit into `seconds` with 0.5 s of silence between them, and how
    many those are; at least one."""
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
    """Seconds to the end of the last 20 ms that are not 40 dB or more below the loudest ones."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level = np.sqrt((frames**2).mean(axis=1))
    return float((np.flatnonzero(level > _QUIET * level.max())[-1] + 1) * _FRAME / SAMPLE_RATE)
