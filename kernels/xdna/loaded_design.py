"""A design on the device: its context and bound runs, the recovery after a failure, and the canary product.

After a failed call the context is rebuilt once and the call repeated. If that fails too, the design is disabled for the
rest of its backend's life, and every later call raises at once.

The canary is a product of known result that a design must compute before its first real product, because an xclbin that
was built for another K reports success and returns garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tilewhisper.kernels.base import BackendUnavailable, ProductFailed, ProductShape
from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.buffers import Bits, bits, values

CANARY_ROWS = 4
CANARY_BOUND = 2.0**-12
"""Of the sum of |a| |b|: float32 sums of K = 5120 steps stay below K 2^-24 = 2^-11.7 even when every rounding errs the
same way, and random signed data far below it; a wrong design is wrong by about 1."""


class LoadedDesign:
    """One design on the device, with the runs that are bound to it, until it is closed or disabled."""

    def __init__(self, device: xrt.Device, artifact: Artifact) -> None:
        self._device = device
        manifest = artifact.manifest
        self._arguments = artifact.xclbin, manifest.kernel, len(manifest.design.operands)
        self._runs: dict[Hashable, list[Any]] = {}
        self._disabled: str | None = None
        self.started = 0
        """Runs."""
        self.verified: set[Hashable] = set()
        """Launches whose canary was computed correctly."""
        self.context = xrt.Context(device, *self._arguments)

    def execute(self, key: Hashable, bind: Callable[[], list[Any]], timeout_ms: int) -> float:
        """Execute the runs that `bind` makes (once for each key): seconds on the device. Raises ProductFailed."""
        if self._disabled:
            raise ProductFailed(self._disabled)
        try:
            return self._execute(key, bind, timeout_ms)
        except ProductFailed as failure:
            first = str(failure)
        # Outside of `except`: the traceback keeps the runs alive, thus the context, and all contexts may be in use.
        try:
            self._rebuild()
            return self._execute(key, bind, timeout_ms)
        except (ProductFailed, BackendUnavailable) as second:
            self._disabled = f"{second} (design disabled after a rebuild; first failure: {first})"
            raise ProductFailed(self._disabled) from second

    def _execute(self, key: Hashable, bind: Callable[[], list[Any]], timeout_ms: int) -> float:
        if key not in self._runs:
            self._runs[key] = bind()
        self.started += len(self._runs[key])
        return self.context.execute(self._runs[key], timeout_ms)

    def _rebuild(self) -> None:
        self._runs.clear()
        self.context.close()
        self.context = xrt.Context(self._device, *self._arguments)

    def close(self) -> None:
        self._runs.clear()
        self.context.close()


def canary_operand(shape: ProductShape) -> Bits:
    """A of a canary product: random signed numbers, (batch, m, k)."""
    numbers = np.random.default_rng(0).standard_normal((shape.batch, shape.m, shape.k), dtype=np.float32)
    return bits(torch.from_numpy(numbers))


def check_canary(shape: ProductShape, found: npt.NDArray[np.float32], a: Bits, b: npt.NDArray[np.float64]) -> None:
    """Compare `CANARY_ROWS` rows of found (batch, m, n) with a @ b in float64. Raises ProductFailed."""
    rows = np.linspace(0, shape.m - 1, min(CANARY_ROWS, shape.m), dtype=int)
    chosen = values(a[:, rows])
    expected, magnitude = chosen @ b, np.abs(chosen) @ np.abs(b)
    error = np.abs(found[:, rows].astype(np.float64) - expected) - CANARY_BOUND * magnitude
    if not (error <= 0).all():
        raise ProductFailed(
            f"the canary product {shape} is wrong: the design was built for another size or is broken; "
            "rebuild it with scripts/build_kernels.py"
        )
