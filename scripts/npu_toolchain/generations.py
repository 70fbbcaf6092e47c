"""The generations of mlir-aie's driver: which versions belong to each, and its command line.

Sources: mlir-aie's pull requests #3364 and #3369 (July 2026: the `--get-` flags, no more `aiecc.py`) and #3501 (August
2026: Peano by default), its tools/aiecc/CommandLineOptions.h, and its issue #3029 (why both `--no-` flags are given).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from tilewhisper.kernels.xdna.designs.spellings import SPELLINGS, Spelling

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Generation:
    """Drivers with the same flags and operations."""

    name: str
    since: Version
    built_since: date
    """A driver built from sources has no version, only its date."""
    without_chess: tuple[str, ...]
    """Select Peano instead of Vitis's compiler; empty where Peano is the default."""
    get_xclbin: str
    get_instructions: str
    spelling: Spelling
    """Of the designs that it reads."""

    def arguments(self, text: Path, peano: Path, work: Path, xclbin: str, instructions: str) -> list[str]:
        """Compile `text` to two files in the current folder, with intermediate files in `work`."""
        return [
            *self.without_chess,
            f"--peano={peano}",
            *(self.get_xclbin, f"--xclbin-name={xclbin}"),
            *(self.get_instructions, f"--npu-insts-name={instructions}"),
            f"--tmpdir={work}",
            str(text),
        ]


_1_3 = Generation(
    name="1.3",
    since=(1, 3, 0),
    built_since=date(2026, 6, 1),
    without_chess=("--no-compile-host", "--no-xchesscc", "--no-xbridge"),
    get_xclbin="--aie-generate-xclbin",
    get_instructions="--aie-generate-npu-insts",
    spelling=SPELLINGS["1.3"],
)
_1_4_0 = replace(
    _1_3,
    name="1.4.0",
    since=(1, 4, 0),
    built_since=date(2026, 7, 20),
    without_chess=("--no-xchesscc", "--no-xbridge"),
    get_xclbin="--get-xclbin",
    get_instructions="--get-npu-insts",
)
_1_4_1 = replace(_1_4_0, name="1.4.1", since=(1, 4, 1), built_since=date(2026, 8, 4), without_chess=())
_1_4_3 = replace(
    _1_4_1, name="1.4.3", since=(1, 4, 3), built_since=date(2026, 9, 1), spelling=SPELLINGS["1.4.3"]
)  # fmt: skip
GENERATIONS = (_1_3, _1_4_0, _1_4_1, _1_4_3)
"""Oldest first. That 1.4.3 is the first without views is inferred from dates: 1.4.2.dev16 of August 19 has them."""


def generation_named(name: str) -> Generation:
    """Raises StopIteration for an unknown name."""
    return next(g for g in GENERATIONS if g.name == name)


def generation_of(version: Version) -> Generation | None:
    """None if the version is older than all."""
    return next((g for g in reversed(GENERATIONS) if version >= g.since), None)


def generation_built_on(day: date) -> Generation | None:
    """None if the day is before all."""
    return next((g for g in reversed(GENERATIONS) if day >= g.built_since), None)


def version_in(text: str) -> Version | None:
    """The first number of the form 1.4.2 or 1.4.2.dev16+g7e00b57 in a text, without what follows 1.4.2."""
    found = re.search(r"(?<![\w.])v?(\d+)\.(\d+)\.(\d+)(?!\d)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def date_in(text: str) -> date | None:
    """The first day of the form 2026-08-04 in a text."""
    found = re.search(r"\b(\d{4})-(\d\d)-(\d\d)\b", text)
    try:
        return date.fromisoformat(found[0]) if found else None
    except ValueError:
        return None
