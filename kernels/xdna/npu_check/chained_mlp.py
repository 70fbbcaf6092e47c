"""The last step of `npu-check`: fc1 with GELU, then fc2, in two designs whose middle result stays on the device.

The middle result is read only after both launches. It is compared with float64, and then serves as the known input of
the second product, so that each is judged within its own error.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from tilewhisper.kernels.base import BackendUnavailable, LayerShape, ProductFailed
from tilewhisper.kernels.xdna import xrt
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.buffers import Bits, bits, values
from tilewhisper.kernels.xdna.layer_plan import ROWS, plan_layer
from tilewhisper.kernels.xdna.layer_weights import Affine, product_matrix
from tilewhisper.kernels.xdna.npu_check.causes import ArrayLayout
from tilewhisper.kernels.xdna.npu_check.comparison import KnownLinear
from tilewhisper.kernels.xdna.npu_check.running import BuiltProduct, Outcome, fill_with_nonsense, judged, unwritten
from tilewhisper.kernels.xdna.npu_check.steps import StepResult, failure, judge, missing_design
from tilewhisper.kernels.xdna.opening import OpenedNpu
from tilewhisper.kernels.xdna.tile_plan import GELU, IDENTITY, TilePlan

NAME = "chained MLP"
_TINY = LayerShape(ROWS, 384, 6, 1536)
"""The layers of tiny: what it needs is built for its whole layers too."""


def mlp_plans(device: Device) -> tuple[TilePlan, ...]:
    """fc1 and fc2."""
    steps = {step.name: step for step in plan_layer(_TINY, device).steps}
    plans = (steps[name].launches[0] for name in ("fc1", "fc2"))
    return tuple(cut for cut in plans if isinstance(cut, TilePlan))


def run_mlp(npu: OpenedNpu, timeout_ms: int) -> StepResult:
    """Run both launches and judge the middle and the last result."""
    plans = mlp_plans(npu.device)
    try:
        built = [BuiltProduct.of(npu.find(cut)) for cut in plans]
    except BackendUnavailable as e:
        return missing_design(NAME, mlp_title(), e, plans[0], npu.device)
    try:
        return judge(NAME, mlp_title(), _run(npu.opened, built, plans, timeout_ms))
    except (ProductFailed, BackendUnavailable) as e:
        return failure(NAME, mlp_title(), e)


def mlp_title() -> str:
    return f"({_TINY.positions}, {_TINY.width}) x fc1, GELU, x fc2, bf16"


def _run(opened: xrt.Device, built: list[BuiltProduct], plans: tuple[TilePlan, ...], timeout_ms: int) -> Outcome:
    generator = torch.Generator().manual_seed(0)
    width, hidden = _TINY.width, _TINY.hidden
    fc1, fc2 = (_random_weights(generator, *size) for size in ((hidden, width), (width, hidden)))
    x = bits(torch.randn(ROWS, width, generator=generator))
    weights = (product_matrix(fc1, GELU), product_matrix(fc2, IDENTITY))
    middle, last, seconds = _launch(opened, built, x, weights, timeout_ms)
    first = _judged("fc1: ", x, fc1, middle, plans[0], seconds)
    return first if first.difference else _judged("fc2: ", middle, fc2, last, plans[1], seconds)


def _launch(
    opened: xrt.Device, built: list[BuiltProduct], x: Bits, weights: tuple[Bits, Bits], timeout_ms: int
) -> tuple[Bits, Bits, tuple[float, ...]]:
    """Both launches: the middle and the last result, and the seconds of each."""
    with ExitStack() as stack:
        contexts = [xrt.Context(opened, each.xclbin, each.kernel) for each in built]
        for context in contexts:
            stack.callback(context.close)
        group = contexts[0].group(0)
        a, w1, w2 = (_sent(opened, group, each) for each in (x, *weights))
        middle, last = (xrt.Buffer(opened, group, np.uint16, (ROWS, each.shape[1])) for each in weights)
        for result in (middle, last):
            fill_with_nonsense(result)
        seconds = tuple(
            context.execute([context.bind(each, *operands)], timeout_ms)
            for context, each, operands in zip(contexts, built, ((a, w1, middle), (middle, w2, last)), strict=True)
        )
        for result in (middle, last):
            result.from_device()
        return middle.array.copy(), last.array.copy(), seconds


def _judged(name: str, left: Bits, weights: Affine, found: Bits, cut: TilePlan, seconds: tuple[float, ...]) -> Outcome:
    right, bias = bits(weights.weight.T.float()), weights.bias.numpy()
    known = KnownLinear(left, right, "bf16", len(right), bias, gelu=name.startswith("fc1"))
    return judged(known, values(found), unwritten(found), ArrayLayout.of(cut), seconds, name)


def _random_weights(generator: torch.Generator, n: int, k: int) -> Affine:
    """Weights that keep the size of their input, and a bias that float32 holds."""
    weight, bias = torch.randn(n, k, generator=generator) / k**0.5, torch.randn(n, generator=generator)
    return Affine(weight.double(), bias.double())


def _sent(opened: xrt.Device, group: int, data: Bits) -> xrt.Buffer:
    buffer = xrt.Buffer(opened, group, np.uint16, data.shape)
    buffer.array[...] = data
    buffer.to_device()
    return buffer
