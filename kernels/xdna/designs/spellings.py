"""The spellings of a design's operations in the releases of mlir-aie."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """How the text is written."""

    views: bool
    """Acquiring gives a view of the FIFO, and another operation its block; else acquiring gives the block."""


SPELLINGS: Mapping[str, Spelling] = {"1.3": Spelling(views=True), "1.4.3": Spelling(views=False)}
"""By the first version of mlir-aie that has it; 1.3's lasts until 1.4.2 (views went with pull request #3553)."""
