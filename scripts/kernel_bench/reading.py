"""The least a product of the decoder can cost: reading its weight from memory."""

from __future__ import annotations

import torch
from kernel_bench.products import Run, Task

from tilewhisper.kernels.cpu import build


def read_of(task: Task) -> Run | None:
    """Read the weight as the native kernels keep it in bytes, by all threads; None without a compiler."""
    if build.why_unavailable():
        return None
    build.load()
    native = torch.ops.tilewhisper_native
    panels, _ = native.pack_weight(task.inputs[1], 8)
    return lambda: torch.tensor(native.read(panels))
