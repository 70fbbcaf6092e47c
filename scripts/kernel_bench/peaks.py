"""What the machine reaches at most, by the native library's own measurement (kernels/cpu/native/peak.cpp)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tilewhisper.kernels.cpu import build


@dataclass(frozen=True)
class Peaks:
    """What is unknown is not there: without a compiler, nothing is known."""

    gops: dict[str, float]
    """GOP/s by kind of instruction, of all threads together."""
    read_gb_s: float | None
    """GB/s from memory, not from a cache."""

    @classmethod
    def measured(cls) -> Peaks:
        if build.why_unavailable():
            return cls({}, None)
        build.load()
        native = torch.ops.tilewhisper_native
        gops = {kind: native.peak(kind) for kind in ("float32", "int16", "int8")}
        return cls({kind: figure for kind, figure in gops.items() if figure}, native.read_bandwidth() or None)

    def or_better(self, later: Peaks) -> Peaks:
        """The larger of two measurements: whatever else ran on the machine can only have taken away."""
        gops = {kind: max(figure, later.gops[kind]) for kind, figure in self.gops.items()}
        return Peaks(gops, max(self.read_gb_s or 0, later.read_gb_s or 0) or None)

    def __str__(self) -> str:
        kinds = [f"{kind} {figure:.0f} GOP/s" for kind, figure in self.gops.items()]
        read = "unknown" if self.read_gb_s is None else f"{self.read_gb_s:.1f} GB/s"
        return f"peak of multiply-adds: {', '.join(kinds) or 'unknown'}; of reading memory: {read}"
