"""The contenders: backends of the registry and torch's dynamic int8, each with its error bound and instructions."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from kernel_bench import instruction_sets
from kernel_bench.products import Run, Task
from torch import Tensor

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend

BASELINE, ORACLE = "torch", "reference"
NATIVE = ("int16", "int8", "int4", "w8a8")
"""Backends that run with the instruction set in use."""


@dataclass(frozen=True)
class Arithmetic:
    """The error bound, the instructions and the weight size of a contender."""

    bound: float
    """Largest accepted relative error, in the Frobenius norm."""
    instructions: str
    """The kind of instruction whose peak applies; "" is unknown."""
    weight_bytes: float
    """Bytes read per weight entry."""


ARITHMETIC = {
    "torch": Arithmetic(1e-5, "float32", 4),
    "torch int8": Arithmetic(5e-2, "int8", 1),
    "int16": Arithmetic(1e-3, "int16", 2),
    # Attention of random numbers in 8 bits rounds q, k, their softmax and v: 2.3e-2; linear products are below 8e-3.
    "int8": Arithmetic(3e-2, "int16", 1),  # bytes are widened to 16 bits in registers
    "int4": Arithmetic(0.13, "int8", 0.5625),
    "w8a8": Arithmetic(3e-2, "int8", 1),
    "bf16": Arithmetic(1e-2, "float32", 4),
}
OTHER = Arithmetic(1e-2, "", 4)


class Contender(Protocol):
    """A backend, or another implementation of the products."""

    @property
    def name(self) -> str: ...

    @property
    def arithmetic(self) -> Arithmetic: ...

    @property
    def instruction_set(self) -> str: ...

    def ready(self, task: Task) -> Run | str:
        """Prepare the weights and return the call to time, or the reason for not supporting the product."""


class BackendContender:
    """A backend of the registry; a native one with an instruction set, or with "" for the fastest."""

    def __init__(self, backend: Backend, instruction_set: str = "") -> None:
        self.name = f"{backend.label} {instruction_set}".rstrip()
        arithmetic = ARITHMETIC.get(backend.name, OTHER)
        self.arithmetic = replace(arithmetic, instructions=f"{arithmetic.instructions} {instruction_set}".rstrip())
        self.instruction_set = instruction_set
        self._backend = backend

    def ready(self, task: Task) -> Run | str:
        if reason := self._backend.supports(task.case.shape):
            return reason
        if not self.instruction_set:
            return task.on(self._backend)
        instruction_sets.use(self.instruction_set)
        run = task.on(self._backend)

        def run_with_set() -> Tensor:
            instruction_sets.use(self.instruction_set)
            return run()

        return run_with_set


class TorchInt8:
    """torch's dynamic int8: a scale for each row of a weight, one for all activations."""

    name = "torch int8"
    arithmetic = ARITHMETIC[name]
    instruction_set = ""

    def ready(self, task: Task) -> Run | str:
        if task.case.kind != "linear":
            return f"does not support {task.case.kind}"
        x, weight, bias = task.inputs
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*quantized tensor creation functions")
            zeros = torch.zeros(len(weight), dtype=torch.long)
            quantized = torch.quantize_per_channel(weight, weight.abs().amax(dim=1) / 127, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantized, bias)
        return lambda: torch.ops.quantized.linear_dynamic(x, packed, reduce_range=True)


def contenders(
    names: Sequence[str] | None, sets: Sequence[str], stack: ExitStack
) -> tuple[list[Contender], dict[str, str]]:
    """Create torch, torch int8 and the named backends (default: all that run here); also list the others with a reason.

    A native backend comes once for each instruction set of `sets`, or with the fastest if there are none. The stack
    closes the backends. Raises UnknownBackend, and BackendUnavailable for a named backend.
    """
    found: list[Contender] = []
    left_out = {}
    for name in dict.fromkeys([BASELINE, *(names or (each for each in registry.names() if each != ORACLE))]):
        reason = registry.backend_class(name).why_unavailable(registry.DEFAULTS)
        if reason and not names:
            left_out[name] = reason
        else:
            backend = stack.enter_context(closing(registry.create(name)))
            found += [BackendContender(backend, each) for each in (sets if name in NATIVE and sets else [""])]
    return [found[0], TorchInt8(), *found[1:]], left_out
