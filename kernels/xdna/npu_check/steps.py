"""The products of `npu-check` as data, from one core to the whole array, and their results on a device.

Each step runs only if the one before passed: it uses all that the step before used, and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilewhisper.kernels.base import BackendUnavailable, ProductFailed, ProductShape
from tilewhisper.kernels.xdna import artifacts, xrt
from tilewhisper.kernels.xdna.array import Device, Geometry
from tilewhisper.kernels.xdna.geometries import ONE_COLUMN, find_geometry
from tilewhisper.kernels.xdna.npu_check.causes import ArrayLayout
from tilewhisper.kernels.xdna.npu_check.comparison import Difference, KnownProduct
from tilewhisper.kernels.xdna.npu_check.running import BuiltProduct, Outcome, run_product
from tilewhisper.kernels.xdna.opening import OpenedNpu
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan

TIMEOUT_MS = 10_000
"""Far above any step (a few milliseconds) and above the driver's own recovery (2 s)."""

State = Literal["passed", "wrong", "hung", "failed", "not built", "not run"]


@dataclass(frozen=True)
class Step:
    """A product, and the cores that compute it."""

    name: str
    geometry: str | Geometry
    shape: ProductShape

    def plan(self, device: Device) -> TilePlan:
        """The product in one launch, without padding."""
        geometry = find_geometry(self.geometry, device) if isinstance(self.geometry, str) else self.geometry
        return plan(self.shape, geometry, device)

    def title(self, device: Device) -> str:
        cut = self.plan(device)
        return product_title(cut.launch.m, cut.launch.k, cut.launch.n, cut.geometry.dtype_in, cut.geometry.dtype_out)


STEPS = (
    Step("one core", "seed-64x64", ProductShape(1, 64, 64, 64)),
    # Four k-steps, two tiles of C side by side and two below each other on each core.
    Step("one column", ONE_COLUMN, ProductShape(1, 512, 256, 64)),
    # A projection of tiny with its padding: three turns, so descriptors are used again.
    Step("whole array", "whole-array", ProductShape(1, 1536, 384, 384)),
)


@dataclass(frozen=True)
class StepResult:
    """What a step gave."""

    name: str
    product: str
    """`(64, 64) x (64, 64), bf16 -> f32`."""
    state: State
    seconds: tuple[float, ...] = ()
    """Of each run, on the device."""
    difference: Difference | None = None
    reason: str = ""
    """The likely cause of a wrong result, or the error."""
    remedy: str = ""

    @property
    def passed(self) -> bool:
        return self.state == "passed"


def run_step(step: Step, npu: OpenedNpu, timeout_ms: int) -> StepResult:
    cut, title = step.plan(npu.device), step.title(npu.device)
    try:
        built = BuiltProduct.of(npu.find(cut))
    except BackendUnavailable as e:
        return missing_design(step.name, title, e, cut, npu.device)
    product = KnownProduct.random(cut.launch.m, cut.launch.k, cut.launch.n, cut.geometry.dtype_out)
    return result_of(step.name, title, npu.opened, built, product, ArrayLayout.of(cut), timeout_ms)


def result_of(
    name: str,
    title: str,
    opened: xrt.Device,
    built: BuiltProduct,
    product: KnownProduct,
    layout: ArrayLayout | None,
    timeout_ms: int,
) -> StepResult:
    """Run a product and judge it."""
    try:
        return judge(name, title, run_product(opened, built, product, layout, timeout_ms))
    except (ProductFailed, BackendUnavailable) as e:
        return failure(name, title, e)


def missing_design(name: str, title: str, error: BackendUnavailable, cut: TilePlan, device: Device) -> StepResult:
    reason = str(error).removesuffix(f"; {artifacts.how_to_fix(cut.design)}")
    return StepResult(name, title, "not built", reason=reason, remedy=how_to_build(device))


def failure(name: str, title: str, error: Exception) -> StepResult:
    """The result of a step that raised."""
    if isinstance(error, xrt.RunTimedOut):
        return StepResult(name, title, "hung", reason=str(error), remedy=_AFTER_A_HANG)
    return StepResult(name, title, "failed", reason=str(error), remedy=_after_failure(str(error)))


def judge(name: str, title: str, outcome: Outcome) -> StepResult:
    if outcome.difference is None:
        return StepResult(name, title, "passed", outcome.seconds)
    return StepResult(name, title, "wrong", outcome.seconds, outcome.difference, outcome.cause, _AFTER_A_WRONG_RESULT)


def product_title(m: int, k: int, n: int, dtype_in: str, dtype_out: str) -> str:
    return f"({m}, {k}) x ({k}, {n}), {dtype_in} -> {dtype_out}"


def how_to_build(device: Device) -> str:
    return f"run python scripts/build_kernels.py --check --device {device.name} --compile"


_AFTER_A_HANG = (
    "wait until the driver has reset the array (about 2 s; `dmesg` says so), end other programs that use the NPU "
    "(`xrt-smi examine -r aie-partitions` lists them) and check again; if it hangs again, build the designs with "
    "another pair of tools (build_kernels.py --pairs) and send the report"
)
_AFTER_A_WRONG_RESULT = "build the designs again with a pair of tools of build_kernels.py --pairs, or send the report"


def _after_failure(text: str) -> str:
    if "ABORT" in text:
        return "install the driver and the firmware from the same source, then start the computer again"
    return "run `dmesg | grep amdxdna` and send its last lines with the report"
