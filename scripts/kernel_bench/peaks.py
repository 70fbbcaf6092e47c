"""Peak arithmetic and memory throughput of the machine, measured by the native library (native/peak.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tilewhisper.kernels.cpu import build


@dataclass(frozen=True)
class Peaks:
    """Unknown peaks are missing; without a compiler, all are unknown."""

    gops: dict[str, float]
    """GOP/s by kind of instruction, or by kind and instruction set as in "int8 avx2", all threads together."""
    read_gb_s: float | None
    """GB/s from memory, not from a cache."""

    @classmethod
    def measured(cls, sets: Sequence[str] = ()) -> Peaks:
        """Measure on this machine, now: with the fastest instructions, and with those of each of `sets`."""
        if build.why_unavailable():
            return cls({}, None)
        build.load()
        native = torch.ops.tilewhisper_native
        gops = {
            f"{kind} {each}".rstrip(): native.peak(kind, each)
            for kind in ("float32", "int16", "int8")
            for each in ("", *sets)
        }
        return cls({kind: figure for kind, figure in gops.items() if figure}, native.read_bandwidth() or None)

    def or_better(self, later: Peaks) -> Peaks:
        """Take the larger of two measurements: other load on the machine can only lower them."""
        gops = {kind: max(figure, later.gops[kind]) for kind, figure in self.gops.items()}
        return Peaks(gops, max(self.read_gb_s or 0, later.read_gb_s or 0) or None)

    def __str__(self) -> str:
        kinds = [f"{kind} {figure:.0f} GOP/s" for kind, figure in self.gops.items()]
        read = "unknown" if self.read_gb_s is None else f"{self.read_gb_s:.1f} GB/s"
        return f"peak of multiply-adds: {', '.join(kinds) or 'unknown'}; memory read bandwidth: {read}"
