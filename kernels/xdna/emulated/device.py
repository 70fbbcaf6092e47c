"""A device that executes a design: it takes buffers as bytes and an instruction stream, and writes the results.

The binary (`Program`) defines the array, K, the core tile, and the layouts of its memory tiles. The instruction stream
defines the shim descriptors, thus M, N and every address in the buffers. Both are evaluated as address maps (`panels`,
`rows`), so a wrong offset, size, stride or layout gives a wrong result. Neither supplies what the other must define:
the core program sums K / k steps of the *binary's* K over the data that arrives.

Errors have the effect they have on the chip, as far as it is known: `DeviceFault` for an address outside a buffer or a
descriptor that is overwritten while it runs, `DeviceHang` where a transfer waits for data that never comes (a binary
of larger K), and silent garbage for all other errors (a binary of smaller K, wrong strides, a C without a wait).

The cores run the micro-kernels, compiled for this machine, object by object (`compiled_cores`), or numpy's equivalents
on whole matrices (`matrices`, `core_functions`). Both have two tiers: `exact` computes products like
`datapath.matmul_exact`, bit-equal to the chip on AIE2, whereas AIE2P's unit differs; `fast` is a float32 product within
`datapath.fast_error_bound` of it.

Not modelled: time, the depth of FIFOs and so deadlocks by back pressure, and the state after an aborted run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu.compiler import find_compiler
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.buffers import STORED
from tilewhisper.kernels.xdna.datapath import matmul_exact, matmul_fast
from tilewhisper.kernels.xdna.emulated import compiled_cores
from tilewhisper.kernels.xdna.emulated.core_functions import ROW_FUNCTIONS, rounded, with_bias
from tilewhisper.kernels.xdna.emulated.matrices import Group, Matrices, matrices_of
from tilewhisper.kernels.xdna.emulated.panels import ProductRoute, route_product
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, ProductProgram, Program, RowProgram
from tilewhisper.kernels.xdna.emulated.rows import RowRoute, route_rows
from tilewhisper.kernels.xdna.sequence import Descriptor, Instruction, decode

Tier = Literal["exact", "fast"]
Cores = Literal["compiled", "numpy"]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]

_log = logging.getLogger(__name__)
_MATMUL = {"exact": matmul_exact, "fast": matmul_fast}


class _Route(NamedTuple):
    """A launch whose operands begin at the start of their buffers."""

    extents: tuple[int, ...]
    maps: ProductRoute | Matrices | RowRoute


class _Launch(NamedTuple):
    bases: tuple[int, ...]
    """The first element of each operand that the launch reads or writes."""
    route: _Route


class EmulatedDevice:
    """Executes programs. Between launches it caches composed maps and nothing else."""

    def __init__(self, device: Device, tier: Tier = "fast", cores: Cores | None = None) -> None:
        """None: the micro-kernels if this machine has a C++ compiler."""
        self.device = device
        self.cores = cores or _available_cores()
        self._tier = tier
        self._launches: dict[tuple[Program, bytes], _Launch] = {}
        self._routes: dict[tuple[Program, tuple[Instruction, ...]], _Route] = {}

    def execute(self, program: Program, instructions: bytes, *buffers: Bytes) -> None:
        """Run one launch on the whole buffers of the design's operands; those of the results are written.

        Raises DeviceFault and DeviceHang.
        """
        launch = self._launch(program, instructions)
        operands = program.design.operands
        numbers = [_numbers(data, operand.dtype) for data, operand in zip(buffers, operands, strict=False)]
        parts = []
        for operand, base, needed, whole in zip(operands, launch.bases, launch.route.extents, numbers, strict=True):
            if base + needed > whole.size:
                last, name = base + needed - 1, operand.name
                raise DeviceFault(f"element {last:,} of {name} is outside its buffer of {whole.size:,}")
            parts.append(whole[base:])
        match program, launch.route.maps:
            case ProductProgram(), ProductRoute() as maps:
                compiled_cores.multiply(program, maps, *parts, exact=self._tier == "exact")
            case ProductProgram(), Matrices() as maps:
                self._multiply(program, maps, *parts)
            case RowProgram(), RowRoute() as maps if self.cores == "compiled":
                named = {operand.name: part for operand, part in zip(operands, parts, strict=True)}
                compiled_cores.compute_rows(program, maps, named, exact=self._tier == "exact")
            case RowProgram(), RowRoute() as maps:
                _compute_rows(program, maps, parts)

    def _launch(self, program: Program, instructions: bytes) -> _Launch:
        """Launches that differ in the place of their operands only share a route."""
        if (program, instructions) not in self._launches:
            bases, moved = _at_zero(_decoded(program, instructions), [o.name for o in program.design.operands])
            if (program, moved) not in self._routes:
                self._routes[program, moved] = _route(program, self.device, moved, self.cores)
            self._launches[program, instructions] = _Launch(bases, self._routes[program, moved])
        return self._launches[program, instructions]

    def _multiply(self, program: ProductProgram, maps: Matrices, a: Numbers, b: Numbers, c: Numbers) -> None:
        products = [self._product(program, group, a, b).reshape(-1) for group in maps.groups]
        if maps.scatter is None:
            c[: products[0].size] = products[0]
        elif products:
            c[maps.scatter.destination] = np.concatenate(products)[maps.scatter.source]

    def _product(self, program: ProductProgram, group: Group, a: Numbers, b: Numbers) -> Numbers:
        design, right = program.design, group.b.read(b)
        sums = _MATMUL[self._tier](group.a.read(a), right[: design.k])
        if design.finish == "bias":
            sums = with_bias(sums, right[design.k :], design.core.n)
        return rounded(sums) if design.dtype_out == "bf16" else sums


def _available_cores() -> Cores:
    try:
        find_compiler()
    except BackendUnavailable as missing:
        _log.warning("the emulated NPU's cores use numpy and not the micro-kernels: %s", missing)
        return "numpy"
    return "compiled"


def _route(program: Program, device: Device, sequence: tuple[Instruction, ...], cores: Cores) -> _Route:
    if isinstance(program, RowProgram):
        rows = route_rows(program, device, sequence)
        return _Route(rows.extents, rows)
    route = route_product(program, device, sequence)
    return _Route(route.extents, route if cores == "compiled" else matrices_of(program, route))


def _compute_rows(program: RowProgram, route: RowRoute, parts: list[Numbers]) -> None:
    operands = list(zip(program.design.operands, route.operands, parts, strict=True))
    inputs = [part[places] for operand, places, part in operands if operand.direction == "to array"]
    results = [(places, part) for operand, places, part in operands if operand.direction == "from array"]
    for found, (places, part) in zip(ROW_FUNCTIONS[program.design.function](*inputs), results, strict=True):
        part[places] = found


def _at_zero(
    sequence: tuple[Instruction, ...], operands: Sequence[str]
) -> tuple[tuple[int, ...], tuple[Instruction, ...]]:
    """The least offset of each operand, and the sequence with these subtracted."""
    transfers = [item for item in sequence if isinstance(item, Descriptor)]
    bases = {name: min((d.offset for d in transfers if d.operand == name), default=0) for name in operands}
    moved = (
        replace(item, offset=item.offset - bases[item.operand]) if isinstance(item, Descriptor) else item
        for item in sequence
    )
    return tuple(bases.values()), tuple(moved)


def _decoded(program: Program, instructions: bytes) -> tuple[Instruction, ...]:
    names = [operand.name for operand in program.design.operands]
    try:
        return decode(np.frombuffer(instructions[: len(instructions) // 4 * 4], "<u4"), names)
    except ValueError as broken:  # the firmware reads on into whatever follows
        raise DeviceHang(str(broken)) from broken


def _numbers(buffer: Bytes, dtype: str) -> Numbers:
    """The bytes that form whole elements."""
    stored = STORED[dtype]
    size = np.dtype(stored).itemsize
    return buffer[: len(buffer) // size * size].view(stored)
