"""A session on the emulated pyxrt with everything up to a run, and plans for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan


def cut(m: int, k: int, n: int, device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry("whole-array", device), device)


PLAN = cut(300, 128, 128)
OTHER_K = cut(300, 64, 128)
LARGER_K = cut(300, 256, 128)
ON_XDNA2 = cut(300, 128, 256, XDNA2)


@dataclass
class Session:
    """Device, context, kernel, instructions and buffers of one launch, made by the bindings' own sequence."""

    pyxrt: Any
    root: Path
    plan: TilePlan = PLAN
    xclbin_of: TilePlan | None = None

    def __post_init__(self):
        x, p = self.pyxrt, self.plan
        found = artifacts.find(self.root, p)
        self.device = x.device(0)
        binary = x.xclbin(str(artifacts.find(self.root, self.xclbin_of or p).xclbin))
        self.context = x.hw_context(self.device, self.device.register_xclbin(binary))
        self.kernel = x.kernel(self.context, binary.get_kernels()[0].get_name())
        stream = found.instructions.read_bytes()
        self.length = found.instruction_count
        self.instructions = self.buffer(len(stream), 1, x.bo.cacheable)
        self.instructions.write(stream, 0)
        self.instructions.sync(x.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)
        random = np.random.default_rng(0)
        m, k, n = p.launch.m, p.launch.k, p.launch.n
        self.operands = [
            bf16_bits(random.standard_normal(shape).astype(np.float32), Rounding.NEAREST_EVEN)
            for shape in ((m, k), (k, n))
        ]
        self.a, self.b, self.c = (self.buffer(size, 3 + i) for i, size in enumerate((2 * m * k, 2 * k * n, 4 * m * n)))
        for buffer, operand in zip((self.a, self.b), self.operands, strict=True):
            buffer.write(operand, 0)
            self.to_device(buffer)

    def buffer(self, size: int, argument: int, flag=None):
        return self.pyxrt.bo(self.device, size, flag or self.pyxrt.bo.host_only, self.kernel.group_id(argument))

    def to_device(self, buffer):
        buffer.sync(self.pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)

    @property
    def arguments(self) -> list:
        return [3, self.instructions, self.length, self.a, self.b, self.c]

    def run(self):
        run = self.pyxrt.run(self.kernel)
        for index, value in enumerate(self.arguments):
            run.set_arg(index, value)
        return run

    def result(self) -> np.ndarray:
        self.c.sync(self.pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE)
        shape = self.plan.launch.m, self.plan.launch.n
        return np.frombuffer(self.c.map(), np.float32).reshape(shape).copy()

    def is_right(self) -> bool:
        a, b = (bf16_values(operand).astype(np.float64) for operand in self.operands)
        tolerance = (self.plan.launch.k + 1) * 2.0**-24 * (abs(a) @ abs(b))
        return bool((abs(self.result() - a @ b) <= tolerance).all())

    def state(self, name: str):
        return getattr(self.pyxrt.ert_cmd_state, f"ERT_CMD_STATE_{name}")

    def finish(self, run) -> str:
        run.start()
        return str(run.wait(2000)).removeprefix("ert_cmd_state.ERT_CMD_STATE_")
