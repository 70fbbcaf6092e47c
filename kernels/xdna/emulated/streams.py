"""The addresses that each column's streams carry in one launch, from its shim descriptors.

Knows the rules of a shim tile: descriptors that are in use, queues that are full, waits, results that may not have
arrived. Addresses are in elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device, Operand
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang, Layout
from tilewhisper.kernels.xdna.sequence import AnyDesign, Descriptor, Instruction, Wait, finish

Addresses = npt.NDArray[np.int32]
Streams = dict[tuple[str, int], list[Descriptor]]
"""By operand and column: the transfers in order; of results only transfers with a wait."""

_ADDRESSABLE = 2**31  # elements, of an int32


def streams_of(design: AnyDesign, device: Device, sequence: Sequence[Instruction]) -> Streams:
    """The transfers of a launch. Raises DeviceFault and DeviceHang."""
    columns, operands = range(design.columns), {operand.name: operand for operand in design.operands}
    streams: Streams = {(operand, column): [] for operand in operands for column in columns}
    running: list[list[Descriptor]] = [[] for _ in columns]
    for item in sequence:
        if item.column not in columns:
            raise DeviceFault(f"the design has no column {item.column}")
        active = running[item.column]
        if isinstance(item, Wait):
            if not finish(active, item):
                raise DeviceHang(f"column {item.column} waits for a {item.operand} without a transfer")
            continue
        _start(item, active, operands[item.operand], device)
        streams[item.operand, item.column].append(item)
    # A launch ends with its stream; results without a wait may not have arrived.
    for column in columns:
        for name in (name for name, operand in operands.items() if operand.direction == "from array"):
            arrived = streams[name, column]
            del arrived[len(arrived) - sum(d.operand == name for d in running[column]) :]
    return streams


def _start(item: Descriptor, active: list[Descriptor], operand: Operand, device: Device) -> None:
    if item.id >= device.shim_descriptors or item.id in {other.id for other in active}:
        raise DeviceFault(f"descriptor {item.id} of column {item.column} is in use or does not exist")
    if item.direction != operand.direction:
        raise DeviceHang(f"no stream moves {item.operand} {item.direction}")
    if sum(other.operand == item.operand for other in active) == device.task_queue:
        raise DeviceHang(
            f"the transfer of {item.operand} in descriptor {item.id} of column {item.column} was lost: "
            f"the queue of its channel already held {device.task_queue}"
        )
    active.append(item)


def extents(sequence: Sequence[Instruction], operands: Sequence[Operand]) -> tuple[int, ...]:
    """Elements that the buffer of each operand must hold at least."""
    ends = {operand.name: 0 for operand in operands}
    for item in sequence:
        if isinstance(item, Descriptor) and all(item.sizes):
            ends[item.operand] = max(ends[item.operand], _last(item) + 1)
    return tuple(ends.values())


def addresses(d: Descriptor) -> Addresses:
    """The elements of a transfer, in order."""
    if _last(d) >= _ADDRESSABLE:
        raise DeviceFault(f"element {_last(d):,} of {d.operand} is outside every buffer")
    return _walk(d.offset, d.sizes, d.strides)


def joined(transfers: Iterable[Descriptor]) -> Addresses:
    """The elements of several transfers."""
    return np.concatenate([np.empty(0, np.int32), *map(addresses, transfers)])


def order(layout: Layout, size: int) -> Addresses:
    """The order in which a memory tile reads the elements of an object of `size`."""
    found = _walk(0, layout.sizes, layout.strides)
    if found.size and found.max() >= size:
        raise DeviceFault(f"a memory tile reads element {found.max():,} of an object of {size:,}")
    return found


def pieces(stream: Iterable[Addresses], size: int) -> Iterator[Addresses]:
    """The stream cut into arrays (any number, size). An incomplete piece at its end is dropped."""
    rest = np.empty(0, np.int32)
    for part in stream:
        whole = np.concatenate((rest, part)) if rest.size else part
        end = whole.size // size * size
        rest = whole[end:]
        if end:
            yield whole[:end].reshape(-1, size)


def _last(d: Descriptor) -> int:
    return d.offset + sum((size - 1) * stride for size, stride in zip(d.sizes, d.strides, strict=True))


def _walk(offset: int, sizes: Sequence[int], strides: Sequence[int]) -> Addresses:
    flat = np.array(offset, np.int32)
    for size, stride in zip(sizes, strides, strict=True):
        flat = np.add.outer(flat, np.arange(size, dtype=np.int32) * np.int32(stride if size > 1 else 0))
    return flat.reshape(-1)
