"""Check that a text is a valid design, on the parsed module only, in two ways.

On its own: symbols, types along every link and in every core's program, layouts that send each element once, balanced
acquires and releases, DMA channels, L1 and L2 bytes, descriptors inside their buffer and not overwritten while in use.

Against a plan: device, array, core tile and dtypes are read from the text, K, M and N from the operands; the plan of
these numbers, with all limits of `tiling`, must generate exactly this design. So a consistent text of another product
is valid too; the caller compares it with the plan it needs (`read_plan`).

Not checked: routing, program memory, timing, deadlocks by back pressure, and the rules of mlir-aie itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import chain, zip_longest
from math import prod
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.designs.configuration import structure_of
from tilewhisper.kernels.xdna.designs.plan_of_text import read_plan
from tilewhisper.kernels.xdna.designs.reader import DesignError, ReadDesign, read
from tilewhisper.kernels.xdna.designs.structure import (
    MEMORY_ROW,
    SHIM_ROW,
    Acquire,
    Call,
    Core,
    Fifo,
    Link,
    MicroKernels,
    Place,
    Release,
    Structure,
    steps_of,
)
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.sequence import Descriptor, finish, runtime_sequence

_CHANNELS = {SHIM_ROW: 2, MEMORY_ROW: 6}
_CORE_CHANNELS = 2
"""DMA channels of a tile, in each direction."""

Reasons = Iterator[str]


def check(text: str) -> None:
    """Check a text. Raises DesignError with the first error, BackendUnavailable if xDSL is not installed."""
    design = read(text)
    device = DEVICES[design.structure.device]
    first = next(chain(_own_reasons(design, device), _plan_reasons(design)), None)
    if first:
        raise DesignError(first)


def _plan_reasons(design: ReadDesign) -> Reasons:
    """Differences between the text and the design of its plan."""
    required_plan = read_plan(design)
    found = design.structure
    required = structure_of(required_plan, _kernels(found))
    for part in ("functions", "tiles", "fifos", "links", "cores", "arguments"):
        yield from _differences(part, getattr(required, part), getattr(found, part))
    yield from _differences("instructions", runtime_sequence(required_plan), design.sequence)


def _kernels(structure: Structure) -> MicroKernels:
    """The text's micro-kernels, whose place a plan leaves open."""
    path = structure.functions[0].object_file
    kind = PureWindowsPath if PureWindowsPath(path).is_absolute() else PurePosixPath
    return MicroKernels(kind(path).parent)


def _differences(part: str, required: Iterable[Any], found: Iterable[Any]) -> Reasons:
    for i, (expected, actual) in enumerate(zip_longest(required, found)):
        if expected != actual:
            yield f"{part}: number {i} {_difference(expected, actual)}"


def _difference(expected: Any, actual: Any) -> str:
    """The fields that differ if both have the same type, else both values."""
    if type(expected) is not type(actual) or not is_dataclass(expected):
        return f"is {actual}, and the plan needs {expected}"
    names = [f.name for f in fields(expected) if getattr(expected, f.name) != getattr(actual, f.name)]
    parts = (f"has {name} {getattr(actual, name)}, and the plan needs {getattr(expected, name)}" for name in names)
    return "; ".join(parts)


def _own_reasons(design: ReadDesign, device: Device) -> Reasons:
    structure = design.structure
    fifos = {fifo.name: fifo for fifo in structure.fifos}
    yield from _symbol_reasons(structure, fifos)
    yield from _tile_reasons(structure, device)
    for fifo in structure.fifos:
        yield from _layout_reasons(fifo)
    for link in structure.links:
        yield from _link_reasons(link, fifos)
    for core in structure.cores:
        yield from _core_reasons(core, structure, fifos)
    yield from _memory_reasons(structure, fifos, device)
    yield from _channel_reasons(structure)
    yield from _sequence_reasons(design, device)


def _symbol_reasons(structure: Structure, fifos: dict[str, Fifo]) -> Reasons:
    buffers = (buffer.name for core in structure.cores for buffer in core.buffers)
    names = Counter(
        [*(function.name for function in structure.functions), *(f.name for f in structure.fifos), *buffers]
    )
    for name, count in names.items():
        if count > 1:
            yield f"@{name} is defined {count} times"
    for function in structure.functions:
        if not any(kind(function.object_file).is_absolute() for kind in (PurePosixPath, PureWindowsPath)):
            yield f"the object file {function.object_file!r} of @{function.name} must have an absolute path"
    linked = [name for link in structure.links for name in (*link.inputs, *link.outputs)]
    for name, count in Counter(linked).items():
        if name not in fifos:
            yield f"a link uses @{name}, but no FIFO has this name"
        elif count > 1:
            yield f"{name} is linked {count} times"
    for name, fifo in fifos.items():
        if name not in linked and any(place.row == MEMORY_ROW for place in (fifo.producer, *fifo.consumers)):
            yield f"{name} ends in a memory tile and is not linked"


def _tile_reasons(structure: Structure, device: Device) -> Reasons:
    if len(set(structure.tiles)) != len(structure.tiles):
        yield "a tile is declared twice"
    for place in structure.tiles:
        if place.column >= device.columns or place.row > MEMORY_ROW + device.rows:
            yield f"{place} is outside {device.name}"
    used = {place for fifo in structure.fifos for place in (fifo.producer, *fifo.consumers)}
    if idle := set(structure.tiles) - used:
        yield f"{min(idle)} is declared and no FIFO uses it"
    cores = Counter(core.place for core in structure.cores)
    for place in (place for place in structure.tiles if place.row > MEMORY_ROW):
        if cores[place] != 1:
            yield f"{place} has {cores[place]} programs"
    for place in cores:
        if place.row <= MEMORY_ROW:
            yield f"{place} has a program and is not a core"


def _layout_reasons(fifo: Fifo) -> Reasons:
    """A layout must send each element of an object, or of each joined part of it, once."""
    if not fifo.to_stream:
        return
    part, count = prod(size for size, _ in fifo.to_stream), fifo.block.elements
    addresses = [0]
    for size, stride in fifo.to_stream:
        addresses = [address + i * stride for address in addresses for i in range(size)]
    if sorted(addresses) != list(range(part)) or count % part:
        yield f"the layout of {fifo.name} does not send each of its {count:,} elements once"


def _link_reasons(link: Link, fifos: dict[str, Fifo]) -> Reasons:
    title = f"the link {', '.join(link.inputs)} -> {', '.join(link.outputs)}"
    if min(len(link.inputs), len(link.outputs)) != 1:
        yield f"{title} must have one FIFO on exactly one side"
        return
    into, out = ([fifos[name] for name in names] for names in (link.inputs, link.outputs))
    if len({*(place for fifo in into for place in fifo.consumers), *(fifo.producer for fifo in out)}) != 1:
        yield f"{title} must meet in one tile"
    if (
        sum(f.block.size for f in into) != sum(f.block.size for f in out)
        or len({f.block.dtype for f in into + out}) > 1
    ):
        yield f"{title} changes the size or the dtype of its objects"
    for side, offsets in ((into, link.input_offsets), (out, link.output_offsets)):
        expected = [sum(f.block.elements for f in side[:i]) for i in range(len(side))]
        if list(offsets) != (expected if len(side) > 1 else []):
            yield f"{title} has the offsets {list(offsets)}, but its parts are at {expected}"


def _core_reasons(core: Core, structure: Structure, fifos: dict[str, Fifo]) -> Reasons:
    functions = {function.name: function for function in structure.functions}
    own = {buffer.name: buffer.block for buffer in core.buffers}
    blocks = {name: fifo.block for name, fifo in fifos.items()} | own
    acquired: set[str] = set()
    for step in steps_of(core.program):
        match step:
            case Acquire(name, port) | Release(name, port):
                fifo = fifos[name]
                if core.place not in ((fifo.producer,) if port == "produce" else fifo.consumers):
                    yield f"the core at {core.place} cannot {port} {name}, which does not end there"
                if isinstance(step, Acquire) == (name in acquired):
                    yield f"the core at {core.place} acquires or releases {name} twice"
                acquired ^= {name}
            case Call(name, arguments):
                required = functions[name].arguments if name in functions else ()
                available = acquired | own.keys()
                if not available.issuperset(arguments) or required != tuple(blocks[name] for name in arguments):
                    yield f"the core at {core.place} calls {name} on objects of a wrong type or without acquiring them"
    if acquired:
        yield f"the core at {core.place} never releases {', '.join(sorted(acquired))}"


def _memory_reasons(structure: Structure, fifos: dict[str, Fifo], device: Device) -> Reasons:
    for core in structure.cores:
        ends = [fifo for fifo in structure.fifos if core.place in (fifo.producer, *fifo.consumers)]
        held = sum(buffer.block.size for buffer in core.buffers)
        needed = core.stack_bytes + held + sum(fifo.depth * fifo.block.size for fifo in ends)
        if needed > device.l1_bytes:
            yield f"the core at {core.place} needs {needed:,} bytes of L1 with its stack, and has {device.l1_bytes:,}"
    # The FIFOs on both sides of a link share the same buffers.
    l2: Counter[Place] = Counter()
    for link in structure.links:
        inputs = [fifos[name] for name in link.inputs]
        l2[inputs[0].consumers[0]] += sum(fifo.depth * fifo.block.size for fifo in inputs)
    for place, needed in l2.items():
        if needed > device.l2_bytes:
            yield f"the memory {place} needs {needed:,} bytes and has {device.l2_bytes:,}"


def _channel_reasons(structure: Structure) -> Reasons:
    out = Counter(fifo.producer for fifo in structure.fifos)
    into = Counter(place for fifo in structure.fifos for place in fifo.consumers)
    for place in structure.tiles:
        channels = _CHANNELS.get(place.row, _CORE_CHANNELS)
        if max(out[place], into[place]) > channels:
            yield f"{place} has {into[place]} FIFOs in and {out[place]} out, but {channels} DMA channels each way"


def _sequence_reasons(design: ReadDesign, device: Device) -> Reasons:
    sizes = dict(zip(design.operands, (block.elements for block in design.structure.arguments), strict=True))
    busy: dict[int, list[Descriptor]] = {}
    for item in design.sequence:
        running = busy.setdefault(item.column, [])
        if not isinstance(item, Descriptor):
            if not finish(running, item):
                yield f"column {item.column} has more waits than transfers of {item.operand}"
            continue
        last = item.offset + sum((size - 1) * stride for size, stride in zip(item.sizes, item.strides, strict=True))
        title = f"descriptor {item.id} of column {item.column} for {item.operand}"
        if not 0 <= last < sizes[item.operand]:
            yield f"{title} reaches element {last:,} of {sizes[item.operand]:,}"
        if not 0 <= item.id < device.shim_descriptors:
            yield f"{title}: a shim tile has {device.shim_descriptors} descriptors"
        if item.id in {other.id for other in running}:
            yield f"{title} is reused before a wait has freed it"
        if sum(other.operand == item.operand for other in running) >= device.task_queue:
            yield (
                f"{title} is lost: the queue of its channel holds {device.task_queue} transfers; wait for an earlier "
                "result before it"
            )
        running.append(item)
    for column, running in busy.items():
        if any(item.direction == "from array" for item in running):
            yield f"no wait for the last result of column {column}"
