"""Draw a roofline (Williams et al., 2009): the speed of each product below the limits of memory and instructions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MARKERS = "osD^vPX*"
ROOF = "0.45"
"""Grey; colours distinguish the backends."""


@dataclass(frozen=True)
class Point:
    """One product on one backend."""

    backend: str
    operations_per_byte: float
    gops: float


def draw(file: Path, title: str, gops: Mapping[str, float], read_gb_s: float | None, points: Sequence[Point]) -> None:
    """Write the picture in the format of the file's suffix. Unknown limits are left out."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    low = min(point.operations_per_byte for point in points) / 2
    high = max(point.operations_per_byte for point in points) * 2
    for kind, peak in gops.items():
        _roof(axes, kind, peak, read_gb_s, low, high)
    if read_gb_s is not None:
        _note(axes, f"reading memory, {read_gb_s:.0f} GB/s", (low * 1.6, low * read_gb_s), align="left")
    for backend, marker in zip(dict.fromkeys(point.backend for point in points), MARKERS * len(points), strict=False):
        own = [point for point in points if point.backend == backend]
        at = ([point.operations_per_byte for point in own], [point.gops for point in own])
        axes.scatter(*at, marker=marker, s=36, alpha=0.75, label=backend, zorder=3)
    axes.set(xscale="log", yscale="log", xlim=(low, high), title=title)
    axes.set(xlabel="operations per byte from and to memory", ylabel="GOP/s")
    axes.grid(which="both", alpha=0.2)
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _roof(axes: Axes, kind: str, peak: float, read_gb_s: float | None, low: float, high: float) -> None:
    at = np.geomspace(low, high, 500)
    height = np.full_like(at, peak) if read_gb_s is None else np.minimum(peak, at * read_gb_s)
    axes.plot(at, height, color=ROOF, linewidth=1, zorder=1)
    _note(axes, f"{kind}, {peak:.0f} GOP/s", (high, peak), align="right")


def _note(axes: Axes, text: str, at: tuple[float, float], align: str) -> None:
    shift = (4 if align == "left" else -4, 3)
    axes.annotate(text, at, shift, textcoords="offset points", ha=align, color=ROOF, fontsize="small")
