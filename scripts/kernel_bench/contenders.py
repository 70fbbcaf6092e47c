"""Who takes part: backends of the registry and torch's own int8, each with what it promises and uses."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol

import torch
from kernel_bench.products import Run, Task

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend

BASELINE, ORACLE = "torch", "reference"


@dataclass(frozen=True)
class Arithmetic:
    """What a contender promises and uses."""

    bound: float
    """Of the relative error, in the Frobenius norm."""
    instructions: str
    """Whose peak it is held against; "" is unknown."""
    weight_bytes: int
    """That it reads for one entry of a weight."""


ARITHMETIC = {
    "torch": Arithmetic(1e-5, "float32", 4),
    "torch int8": Arithmetic(5e-2, "int8", 1),
    "int16": Arithmetic(1e-3, "int16", 2),
    "int8": Arithmetic(2e-2, "int16", 1),  # bytes are widened to 16 bits in registers
    "w8a8": Arithmetic(2e-2, "int8", 1),
    "bf16": Arithmetic(1e-2, "float32", 4),
}
OTHER = Arithmetic(1e-2, "", 4)


class Contender(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def arithmetic(self) -> Arithmetic: ...

    def ready(self, task: Task) -> Run | str:
        """What is to be timed, weights prepared; or why there is nothing."""


class BackendContender:
    """A backend of the registry."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.label
        self.arithmetic = ARITHMETIC.get(backend.name, OTHER)
        self._backend = backend

    def ready(self, task: Task) -> Run | str:
        return self._backend.supports(task.case.shape) or task.on(self._backend)


class TorchInt8:
    """torch's dynamic int8: a scale for each row of a weight, one for all activations."""

    name = "torch int8"
    arithmetic = ARITHMETIC[name]

    def ready(self, task: Task) -> Run | str:
        if task.case.kind != "linear":
            return f"has no {task.case.kind}"
        x, weight, bias = task.inputs
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*quantized tensor creation functions")
            zeros = torch.zeros(len(weight), dtype=torch.long)
            quantized = torch.quantize_per_channel(weight, weight.abs().amax(dim=1) / 127, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantized, bias)
        return lambda: torch.ops.quantized.linear_dynamic(x, packed, reduce_range=True)


def contenders(names: Sequence[str] | None, stack: ExitStack) -> tuple[list[Contender], dict[str, str]]:
    """torch, its int8, and the named backends or all that run here; and why others are left out.

    The backends are closed with the stack. Raises UnknownBackend, and BackendUnavailable for one that was named.
    """
    found: list[Contender] = []
    left_out = {}
    for name in dict.fromkeys([BASELINE, *(names or (each for each in registry.names() if each != ORACLE))]):
        reason = registry.backend_class(name).why_unavailable(registry.DEFAULTS)
        if reason and not names:
            left_out[name] = reason
        else:
            found.append(BackendContender(stack.enter_context(closing(registry.create(name)))))
    return [found[0], TorchInt8(), *found[1:]], left_out
