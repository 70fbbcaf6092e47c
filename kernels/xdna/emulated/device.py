"""A device that executes a design: it takes buffers as bytes and an instruction stream, and writes the buffer of C.

The binary (`Program`) defines the array, K, the core tile, and the layouts of its memory tiles. The instruction stream
defines the shim descriptors, thus M, N and every address in the buffers. Both are evaluated as index maps
(`index_maps`), so a wrong offset, size, stride or layout gives a wrong product. Neither supplies what the other must
define: the core program sums K / k steps of the *binary's* K over the data that arrives.

Errors have the effect they have on the chip, as far as it is known: `DeviceFault` for an address outside a buffer or a
descriptor that is overwritten while it runs, `DeviceHang` where a transfer waits for data that never comes (a binary
of larger K), and silent garbage for all other errors (a binary of smaller K, wrong strides, a C without a wait).

Tiers: `exact` is `datapath.matmul_exact`, bit-equal to the chip on AIE2; on AIE2P, whose unit differs, it is an
approximation. `fast` is `datapath.matmul_fast`, within `datapath.fast_error_bound` of it. Both use the same index maps.

Not modelled: time, the depth of FIFOs and so deadlocks by back pressure, and the state after an aborted run.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.datapath import matmul_exact, matmul_fast
from tilewhisper.kernels.xdna.emulated.index_maps import Gather, Route, compose
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, Program
from tilewhisper.kernels.xdna.sequence import Instruction, decode

Tier = Literal["exact", "fast"]
Bytes = npt.NDArray[np.uint8]

_MATMUL = {"exact": matmul_exact, "fast": matmul_fast}


class EmulatedDevice:
    """Executes programs. Between launches it caches composed index maps and nothing else."""

    def __init__(self, device: Device, tier: Tier = "fast") -> None:
        self.device = device
        self._matmul = _MATMUL[tier]
        self._routes: dict[tuple[Program, bytes], Route] = {}

    def execute(self, program: Program, instructions: bytes, a: Bytes, b: Bytes, c: Bytes) -> None:
        """Run one launch on whole buffers of bf16 bits a and b, and of float32 c, which is written.

        Raises DeviceFault and DeviceHang.
        """
        key = (program, instructions)
        if key not in self._routes:
            self._routes[key] = compose(program, self.device, _decoded(instructions))
        self._run(
            self._routes[key], _whole(a, 2).view(np.uint16), _whole(b, 2).view(np.uint16), _whole(c, 4).view(np.float32)
        )

    def _run(
        self, route: Route, a: npt.NDArray[np.uint16], b: npt.NDArray[np.uint16], c: npt.NDArray[np.float32]
    ) -> None:
        for operand, needed, available in zip("ABC", route.extents, (a.size, b.size, c.size), strict=True):
            if needed > available:
                raise DeviceFault(f"element {needed - 1:,} of {operand} is outside its buffer of {available:,}")
        products = [self._matmul(_read(g.a, a), _read(g.b, b)).reshape(-1) for g in route.groups]
        if route.scatter is None:
            c[: products[0].size] = products[0]
        elif products:
            c[route.scatter.destination] = np.concatenate(products)[route.scatter.source]


def _decoded(instructions: bytes) -> tuple[Instruction, ...]:
    try:
        return decode(np.frombuffer(instructions[: len(instructions) // 4 * 4], "<u4"))
    except ValueError as broken:  # the firmware reads on into whatever follows
        raise DeviceHang(str(broken)) from broken


def _read(matrix: Gather, buffer: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    rows, columns = matrix.shape
    flat = buffer[: rows * columns] if matrix.addresses is None else buffer[matrix.addresses]
    return flat.reshape(matrix.shape)


def _whole(buffer: Bytes, size: int) -> Bytes:
    """The bytes that form whole elements."""
    return buffer[: len(buffer) // size * size]
