"""A design's text, parsed and verified by xDSL, as data: the `Structure` and the runtime sequence.

The reader does not know the plan: its result depends on the text only. `aie.device`, a symbol table, and `aie.core` are
defined for xDSL, so that it verifies calls against the declared functions; the other operations of the `aie` and `aiex`
dialects are unregistered, and this file reads their attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tilewhisper.kernels.base import BackendUnavailable, KernelError
from tilewhisper.kernels.xdna.designs.names import DEVICES, PORTS, TYPES
from tilewhisper.kernels.xdna.designs.structure import (
    SHIM_ROW,
    Acquire,
    Block,
    Buffer,
    Call,
    Core,
    Fifo,
    Function,
    Layout,
    Link,
    Loop,
    Place,
    Release,
    Step,
    Structure,
)
from tilewhisper.kernels.xdna.sequence import Descriptor, Instruction, Wait

if TYPE_CHECKING:
    from xdsl.context import Context
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.ir import Operation

_DEVICE_NAMES = {number: name for name, number in DEVICES.items()}
_DTYPES = {spelled: dtype for dtype, spelled in TYPES.items()}
_PORT_NAMES = {number: port for port, number in PORTS.items()}
_MEMREF = re.compile(r"memref<((?:\d+x)+)(\w+)>")
_DIMENSION = re.compile(r"<\s*size\s*=\s*(\d+)\s*,\s*stride\s*=\s*(\d+)\s*>")


class DesignError(KernelError):
    """A text that is not a valid design; the message names the error and its place."""


@dataclass(frozen=True)
class ReadDesign:
    """The contents of a design's text."""

    structure: Structure
    sequence: tuple[Instruction, ...]
    operands: tuple[str, ...]
    """The names of the sequence's arguments."""


def read(text: str) -> ReadDesign:
    """Read a text. Raises DesignError if it is not a design, BackendUnavailable if xDSL is not installed."""
    device = _only(_operations(_parse(text).body.block.ops), "aie.device")
    inside = _operations(device.regions[0].block.ops)
    try:
        return _design(device, inside)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as broken:
        raise DesignError(f"an operation has missing or malformed attributes: {broken!r}") from broken


def _parse(text: str) -> ModuleOp:
    try:
        from xdsl.parser import Parser
        from xdsl.utils.exceptions import DiagnosticException, ParseError, VerifyException
    except ImportError as missing:
        raise BackendUnavailable(
            "checking a design needs xDSL, which is not installed: pip install 'tilewhisper[npu]'"
        ) from missing
    try:
        module = Parser(_context(), text).parse_module()
        module.verify()
    except (ParseError, VerifyException, DiagnosticException) as refused:
        reason = " ".join(str(refused).split())
        raise DesignError(f"xDSL rejects the text: {reason}") from refused
    return module


@cache
def _context() -> Context:
    from xdsl.context import Context
    from xdsl.dialects import arith, builtin, func, scf
    from xdsl.ir import Dialect
    from xdsl.irdl import (
        IRDLOperation,
        irdl_op_definition,
        operand_def,
        prop_def,
        region_def,
        result_def,
        traits_def,
    )
    from xdsl.traits import IsolatedFromAbove, SymbolTable

    @irdl_op_definition
    class DeviceOp(IRDLOperation):
        name = "aie.device"
        device = prop_def(builtin.IntegerAttr)
        sym_name = prop_def(builtin.StringAttr)
        body = region_def("single_block")
        traits = traits_def(SymbolTable(), IsolatedFromAbove())

    @irdl_op_definition
    class CoreOp(IRDLOperation):
        name = "aie.core"
        tile = operand_def(builtin.IndexType)
        stack_size = prop_def(builtin.IntegerAttr)
        body = region_def("single_block")
        result = result_def(builtin.IndexType)

    context = Context(allow_unregistered=True)
    for dialect in (builtin.Builtin, func.Func, scf.Scf, arith.Arith, Dialect("aie", [DeviceOp, CoreOp])):
        context.load_dialect(dialect)
    return context


_Operations = list[tuple[str, "Operation"]]


def _operations(operations: Any) -> _Operations:
    """(name, operation), with the real names of unregistered operations."""
    return [(_name(operation), operation) for operation in operations]


def _name(operation: Operation) -> str:
    return str(operation.op_name.data) if hasattr(operation, "op_name") else operation.name


def _of(operations: _Operations, name: str) -> list[Operation]:
    return [operation for found, operation in operations if found == name]


def _only(operations: _Operations, name: str) -> Operation:
    found = _of(operations, name)
    if len(found) != 1:
        raise DesignError(f"expected exactly one {name}, got {len(found)}")
    return found[0]


def _design(device: Operation, inside: _Operations) -> ReadDesign:
    known = {
        "func.func", "aie.tile", "aie.objectfifo", "aie.objectfifo.link", "aie.buffer", "aie.core",
        "aie.runtime_sequence", "aie.end",
    }  # fmt: skip
    if strange := next((name for name, _ in inside if name not in known), None):
        raise DesignError(f"{strange} is not allowed in a design")
    number = _integer(device, "device")
    if number not in _DEVICE_NAMES:
        raise DesignError(f"unknown device {number}; this version has designs for {DEVICES}")
    places = {tile.results[0]: Place(_integer(tile, "col"), _integer(tile, "row")) for tile in _of(inside, "aie.tile")}
    fifos = tuple(_fifo(operation, places) for operation in _of(inside, "aie.objectfifo"))
    by_name = {fifo.name: fifo for fifo in fifos}
    buffers = {operation.results[0]: _buffer(operation, places) for operation in _of(inside, "aie.buffer")}
    launch = _only(inside, "aie.runtime_sequence").regions[0].block
    sequence, operands = _sequence(launch, by_name)
    return ReadDesign(
        Structure(
            device=_DEVICE_NAMES[number],
            functions=tuple(map(_function, _of(inside, "func.func"))),
            tiles=tuple(places.values()),
            fifos=fifos,
            links=tuple(map(_link, _of(inside, "aie.objectfifo.link"))),
            cores=tuple(_core(operation, places, by_name, buffers) for operation in _of(inside, "aie.core")),
            arguments=tuple(_block(argument.type) for argument in launch.args),
        ),
        sequence,
        operands,
    )


def _function(operation: Operation) -> Function:
    arguments = tuple(map(_block, _get(operation, "function_type").inputs))
    return Function(_text(operation, "sym_name"), arguments, _text(operation, "link_with"))


def _fifo(operation: Operation, places: Mapping[Any, Place]) -> Fifo:
    producer, *consumers = (places[operand] for operand in operation.operands)
    name = _text(operation, "sym_name")
    if _layout(_get(operation, "dimensionsFromStreamPerConsumer")):
        raise DesignError(f"the FIFO {name} changes the layout at its consumers, which is not supported")
    block = _block(_get(operation, "elemType"))
    layout = _layout(_get(operation, "dimensionsToStream"))
    return Fifo(name, producer, tuple(consumers), block, layout, _integer(operation, "elemNumber"))


def _layout(attribute: Any) -> Layout:
    return tuple((int(size), int(stride)) for size, stride in _DIMENSION.findall(str(attribute)))


def _link(operation: Operation) -> Link:
    return Link(
        inputs=tuple(name.string_value() for name in _get(operation, "fifoIns").data),
        outputs=tuple(name.string_value() for name in _get(operation, "fifoOuts").data),
        input_offsets=tuple(number.value.data for number in _get(operation, "src_offsets").data),
        output_offsets=tuple(number.value.data for number in _get(operation, "dst_offsets").data),
    )


_PlacedBuffer = tuple[Place, Buffer]


def _buffer(operation: Operation, places: Mapping[Any, Place]) -> _PlacedBuffer:
    return places[operation.operands[0]], Buffer(_text(operation, "sym_name"), _block(operation.results[0].type))


def _core(
    operation: Operation,
    places: Mapping[Any, Place],
    fifos: Mapping[str, Fifo],
    buffers: Mapping[Any, _PlacedBuffer],
) -> Core:
    place = places[operation.operands[0]]
    own = {value: buffer for value, (at, buffer) in buffers.items() if at == place}
    names = {value: buffer.name for value, buffer in own.items()}
    return Core(
        place,
        tuple(_steps(operation.regions[0].block, place, fifos, names)),
        _integer(operation, "stack_size"),
        tuple(own.values()),
    )


def _steps(block: Any, place: Place, fifos: Mapping[str, Fifo], acquired: dict[Any, str]) -> Iterator[Step]:
    """`acquired`: the value of each acquired object -> its FIFO, and of each buffer of the core -> its name."""
    for name, operation in _operations(block.ops):
        match name:
            case "aie.objectfifo.acquire" | "aie.objectfifo.release":
                fifo, port = _symbol(operation, "objFifo_name"), _PORT_NAMES[_integer(operation, "port")]
                _expect_fifo(fifo, fifos, f"the core at {place}")
                if _acquired_or_released(operation) != 1:
                    raise DesignError(f"the core at {place} acquires or releases more than one object of {fifo}")
                if name.endswith("release"):
                    yield Release(fifo, port)
                    continue
                acquired[operation.results[0]] = fifo
                _expect_block(operation.results[0].type, fifos[fifo], place)
                yield Acquire(fifo, port)
            case "aie.objectfifo.subview.access":
                acquired[operation.results[0]] = fifo = acquired[operation.operands[0]]
                _expect_block(operation.results[0].type, fifos[fifo], place)
            case "func.call":
                yield Call(_symbol(operation, "callee"), tuple(acquired[operand] for operand in operation.operands))
            case "scf.for":
                start, end, step = (_constant(operand) for operand in operation.operands)
                if (start, step) != (0, 1):
                    raise DesignError(f"a loop of the core at {place} does not count from 0 by 1")
                yield Loop(end, tuple(_steps(operation.regions[0].block, place, fifos, acquired)))
            case "arith.constant" | "scf.yield" | "aie.end":
                pass
            case _:
                raise DesignError(f"{name} is not allowed in the core at {place}")


def _acquired_or_released(operation: Operation) -> int:
    """The number of objects; an acquire that gives no view has one result for each."""
    if operation.results and "objectfifosubview" not in str(operation.results[0].type):
        return len(operation.results)
    return _integer(operation, "size")


def _sequence(block: Any, fifos: Mapping[str, Fifo]) -> tuple[tuple[Instruction, ...], tuple[str, ...]]:
    """The instructions, and the operand of each argument: the shim FIFOs are named by them."""
    found: list[Instruction] = []
    names: dict[Any, str] = {}
    started: set[str] = set()
    for kind, operation in _operations(block.ops):
        match kind:
            case "aiex.npu.dma_memcpy_nd":
                fifo, argument = _symbol(operation, "metadata"), operation.operands[0]
                _expect_fifo(fifo, fifos, "a transfer")
                operand = fifo.partition("_shim_")[0]
                if names.setdefault(argument, operand) != operand:
                    raise DesignError(f"{fifo} carries the argument that is {names[argument]} elsewhere")
                started.add(fifo)
                found.append(_descriptor(operation, operand, fifos[fifo]))
            case "aiex.npu.dma_wait":
                fifo = _symbol(operation, "symbol")
                _expect_fifo(fifo, fifos, "a wait")
                if fifo not in started:
                    raise DesignError(f"a wait for {fifo} before any transfer through it")
                found.append(Wait(_shim(fifos[fifo]).column, fifo.partition("_shim_")[0]))
            case _:
                raise DesignError(f"{kind} is not allowed in the runtime sequence")
    if len(set(names.values())) != len(names) or not all(argument in names for argument in block.args):
        raise DesignError("each argument of the runtime sequence must be one operand")
    return tuple(found), tuple(names[argument] for argument in block.args)


def _descriptor(operation: Operation, operand: str, fifo: Fifo) -> Descriptor:
    """A transfer; its offsets are multiples of its strides."""
    offsets, sizes, strides = (
        tuple(_get(operation, f"static_{name}").get_values()) for name in ("offsets", "sizes", "strides")
    )
    if not len(offsets) == len(sizes) == len(strides) == 4:
        raise DesignError(f"a transfer of {operand} must have 4 offsets, sizes and strides")
    shim = _shim(fifo)
    if fifo.producer != shim and not _get(operation, "issue_token").value.data:
        raise DesignError(f"a transfer of {operand} through {fifo.name} issues no token, so nothing can wait for it")
    return Descriptor(
        operand=operand,
        column=shim.column,
        direction="to array" if fifo.producer == shim else "from array",
        offset=sum(offset * stride for offset, stride in zip(offsets, strides, strict=True)),
        sizes=(sizes[0], sizes[1], sizes[2], sizes[3]),
        strides=(strides[0], strides[1], strides[2], strides[3]),
        id=_integer(operation, "id"),
    )


def _shim(fifo: Fifo) -> Place:
    shims = [place for place in (fifo.producer, *fifo.consumers) if place.row == SHIM_ROW]
    if len(shims) != 1:
        raise DesignError(f"the FIFO {fifo.name} must go through exactly one shim tile")
    return shims[0]


def _expect_fifo(name: str, fifos: Mapping[str, Fifo], user: str) -> None:
    if name not in fifos:
        raise DesignError(f"{user} uses @{name}, but no FIFO has this name")


def _expect_block(type_: Any, fifo: Fifo, place: Place) -> None:
    if (found := _block(type_)) != fifo.block:
        raise DesignError(f"the core at {place} reads {found} from {fifo.name}, which holds {fifo.block}")


def _constant(value: Any) -> int:
    return _integer(value.owner, "value")


def _block(type_: Any) -> Block:
    """The block of a memref, or of the memref in an object FIFO's type."""
    found = _MEMREF.search(str(type_))
    if not found or found[2] not in _DTYPES:
        raise DesignError(f"{type_} is not a block of {', '.join(_DTYPES)}")
    return Block(tuple(int(size) for size in found[1].rstrip("x").split("x")), _DTYPES[found[2]])


def _get(operation: Operation, name: str) -> Any:
    return operation.properties[name] if name in operation.properties else operation.attributes[name]


def _integer(operation: Operation, name: str) -> int:
    return int(_get(operation, name).value.data)


def _text(operation: Operation, name: str) -> str:
    return str(_get(operation, name).data)


def _symbol(operation: Operation, name: str) -> str:
    return str(_get(operation, name).string_value())
