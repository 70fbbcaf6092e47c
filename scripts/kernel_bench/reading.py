"""The lower bound for a decoder product: reading its weight from memory."""

from __future__ import annotations

import torch
from kernel_bench.products import Run, Task

from tilewhisper.kernels.cpu import build


def read_of(task: Task) -> Run | None:
    """Return a call in which all threads read the weight in the native int8 layout; None without a compiler."""
    if build.why_unavailable():
        return None
    build.load()
    native = torch.ops.tilewhisper_native
    panels, _ = native.pack_weight(task.inputs[1], 8)
    return lambda: torch.tensor(native.read(panels))
