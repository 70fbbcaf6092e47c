"""Run one product of known result on the device, and compare it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.buffers import STORED, values
from tilewhisper.kernels.xdna.npu_check.causes import ArrayLayout, Evidence, likely_cause
from tilewhisper.kernels.xdna.npu_check.comparison import Difference, Doubles, KnownProduct, Mask, compare

RUNS = 2
"""The second run finds state that the first left on the array."""
_FILLING = 0xFE
"""Every byte of a result before its run: no product here gives the number they form, -1.7e38."""


@dataclass(frozen=True)
class BuiltProduct:
    """The files of a design and of one launch; `Artifact` has the same for this project's designs."""

    xclbin: Path
    kernel: str
    instructions: Path
    instruction_count: int

    @classmethod
    def of(cls, artifact: Artifact) -> BuiltProduct:
        return cls(artifact.xclbin, artifact.manifest.kernel, artifact.instructions, artifact.instruction_count)


@dataclass(frozen=True)
class Outcome:
    """A product that was computed: how long each run took on the device, and how the result differs."""

    seconds: tuple[float, ...]
    difference: Difference | None = None
    cause: str = ""


def run_product(
    opened: xrt.Device, built: BuiltProduct, product: KnownProduct, layout: ArrayLayout | None, timeout_ms: int
) -> Outcome:
    """Compute a product `RUNS` times, up to the first wrong result. Raises ProductFailed and BackendUnavailable."""
    seconds: list[float] = []
    for found, untouched, time in _results(opened, built, product, timeout_ms):
        seconds.append(time)
        again = "the first run was right, this one is not, so the array kept a state: " if len(seconds) > 1 else ""
        outcome = judged(product, found, untouched, layout, tuple(seconds), again)
        if outcome.difference:
            return outcome
    return Outcome(tuple(seconds))


def judged(
    product: KnownProduct,
    found: Doubles,
    unwritten: Mask,
    layout: ArrayLayout | None,
    seconds: tuple[float, ...],
    before_cause: str,
) -> Outcome:
    """Compare a result, and find the likely cause of a difference."""
    if not (difference := compare(product, found)):
        return Outcome(seconds)
    return Outcome(seconds, difference, before_cause + likely_cause(Evidence(product, found, unwritten, layout)))


def fill_with_nonsense(result: xrt.Buffer) -> None:
    """Fill it on host and device, so that elements which no run writes are found."""
    result.array.view(np.uint8)[...] = _FILLING
    result.to_device()


def unwritten(array: npt.NDArray[Any]) -> Mask:
    """The elements that are as `fill_with_nonsense` left them."""
    rows, columns = array.shape
    found: Mask = (array.view(np.uint8).reshape(rows, columns, -1) == _FILLING).all(axis=-1)
    return found


def _results(
    opened: xrt.Device, built: BuiltProduct, product: KnownProduct, timeout_ms: int
) -> Iterator[tuple[Doubles, Mask, float]]:
    """Of each run: the result (m, n), the elements that were not written, and the seconds on the device."""
    (m, k), n = product.a_bits.shape, product.b_bits.shape[1]
    context = xrt.Context(opened, built.xclbin, built.kernel)
    try:
        a, b = (xrt.Buffer(opened, context.group(i), np.uint16, size) for i, size in enumerate(((m, k), (k, n))))
        c = xrt.Buffer(opened, context.group(2), STORED[product.dtype_out], (m, n))
        for buffer, bits in ((a, product.a_bits), (b, product.b_bits)):
            buffer.array[...] = bits
            buffer.to_device()
        for _ in range(RUNS):
            fill_with_nonsense(c)
            # Bound anew, so that no run outlives the context.
            seconds = context.execute([context.bind(built, a, b, c)], timeout_ms)
            c.from_device()
            yield _numbers(c.array), unwritten(c.array), seconds
    finally:
        context.close()


def _numbers(array: npt.NDArray[Any]) -> Doubles:
    return values(array) if array.dtype == np.uint16 else array.astype(np.float64)
