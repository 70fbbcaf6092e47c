"""Designs for the emulated device, built on first use in a temporary folder."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.pyxrt import Faults
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan


class DesignsOnDemand:
    """A function from a plan to its design, like `artifacts.find`, that builds missing designs.

    The folder is deleted with this object.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tilewhisper-emulated-")
        self._plans: defaultdict[AnyDesign, dict[str, Plan]] = defaultdict(dict)

    def __call__(self, plan: Plan) -> Artifact:
        plans = self._plans[plan.design]
        folder = Path(self._folder.name)
        if plan.title not in plans:
            plans[plan.title] = plan
            build(tuple(plans.values()), folder)
        return artifacts.find(folder, plan, target="emulated")


def parse_fault(text: str | None) -> Faults:
    """Faults of the emulated device from `hang:N[,N…]`, `lost:N` or `contexts`. Raises BackendUnavailable."""
    if text is None:
        return Faults()
    kind, _, number = text.partition(":")
    if kind == "contexts" and not number:
        return Faults(out_of_contexts=True)
    numbers = tuple(int(n) for n in number.split(",") if n.isdigit() and int(n))
    if kind == "hang" and len(numbers) == 1 + number.count(","):
        return Faults(hang_at=numbers)
    if kind == "lost" and len(numbers) == 1:
        return Faults(lost_at=numbers[0])
    raise BackendUnavailable(f"cannot read the fault {text!r}: expected hang:N[,N...], lost:N (N from 1) or contexts")
