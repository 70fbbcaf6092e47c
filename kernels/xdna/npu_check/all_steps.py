"""All steps of `npu-check` in order, and the launches that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.npu_check.chained_mlp import NAME, mlp_plans, mlp_title, run_mlp
from tilewhisper.kernels.xdna.npu_check.steps import STEPS, StepResult, run_step
from tilewhisper.kernels.xdna.opening import OpenedNpu
from tilewhisper.kernels.xdna.tile_plan import TilePlan

STEP_NAMES = (*(step.name for step in STEPS), NAME)


def plans_of_check(device: Device) -> tuple[tuple[str, TilePlan], ...]:
    """(step, launch) of everything that is run on this device."""
    products = ((step.name, step.plan(device)) for step in STEPS)
    return (*products, *((NAME, cut) for cut in mlp_plans(device)))


def run_steps(npu: OpenedNpu, timeout_ms: int) -> Iterator[StepResult]:
    """The result of every step, in order; after a step that did not pass, the rest is not run."""
    runs: list[tuple[str, str, Callable[[], StepResult]]] = [
        (step.name, step.title(npu.device), lambda step=step: run_step(step, npu, timeout_ms))  # type: ignore[misc]
        for step in STEPS
    ]
    going = True
    for name, title, run in (*runs, (NAME, mlp_title(), lambda: run_mlp(npu, timeout_ms))):
        result = run() if going else StepResult(name, title, "not run")
        going = result.passed
        yield result
