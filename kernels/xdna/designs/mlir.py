"""One design and one launch as MLIR-AIE text in MLIR's generic form.

The generic form can be parsed without knowing the dialects. The names are those of the `aie` and `aiex` dialects of
mlir-aie from 1.3.4, in either `Spelling`. Everything else in the text comes from `structure_of` and
`runtime_sequence`; this file decides nothing.

No text of this file has been compiled by mlir-aie yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from tilewhisper.kernels.xdna.designs.check import check
from tilewhisper.kernels.xdna.designs.configuration import structure_of
from tilewhisper.kernels.xdna.designs.names import DEVICES, PORTS, TYPES, Port
from tilewhisper.kernels.xdna.designs.spellings import SPELLINGS, Spelling
from tilewhisper.kernels.xdna.designs.structure import (
    Acquire,
    Block,
    Buffer,
    Call,
    Core,
    Fifo,
    Function,
    Link,
    Loop,
    MicroKernels,
    Place,
    Release,
    Step,
    Structure,
    shim_fifo,
)
from tilewhisper.kernels.xdna.sequence import Descriptor, Instruction, Plan, Wait, runtime_sequence

__all__ = ["check", "generate"]

Lines = Iterator[str]


def generate(plan: Plan, kernels: MicroKernels | None = None, spelling: Spelling = SPELLINGS["1.3"]) -> str:
    """The module for one launch of the plan; None: the micro-kernels are in the current folder."""
    structure = structure_of(plan, kernels or MicroKernels(Path.cwd()))
    buffers = [(core.place, buffer) for core in structure.cores for buffer in core.buffers]
    blocks = {fifo.name: fifo.block for fifo in structure.fifos}
    blocks |= {buffer.name: buffer.block for _, buffer in buffers}
    body = chain(
        chain.from_iterable(map(_function, structure.functions)),
        map(_tile, structure.tiles),
        map(_fifo, structure.fifos),
        map(_link, structure.links),
        (_buffer(place, buffer) for place, buffer in buffers),
        chain.from_iterable(_core(core, blocks, spelling) for core in structure.cores),
        _sequence(structure, runtime_sequence(plan), [operand.name for operand in plan.design.operands]),
        ('"aie.end"() : () -> ()',),
    )
    device = (
        f'"aie.device"() <{{device = {DEVICES[structure.device]} : i32, sym_name = "main"}}> ({{',
        *_indented(body),
        "}) : () -> ()",
    )
    return "\n".join(('"builtin.module"() ({', *_indented(device), "}) : () -> ()", ""))


def _function(function: Function) -> Lines:
    yield (
        f'"func.func"() <{{function_type = ({_types(function.arguments)}) -> (), sym_name = "{function.name}", '
        'sym_visibility = "private"}> ({'
    )
    path = function.object_file.replace("\\", "\\\\").replace('"', '\\"')
    yield f'}}) {{link_with = "{path}"}} : () -> ()'


def _tile(place: Place) -> str:
    return f'{_at(place)} = "aie.tile"() <{{col = {place.column} : i32, row = {place.row} : i32}}> : () -> index'


def _fifo(fifo: Fifo) -> str:
    places = (fifo.producer, *fifo.consumers)
    dimensions = ", ".join(f"<size = {size}, stride = {stride}>" for size, stride in fifo.to_stream)
    unchanged = ", ".join("[]" for _ in fifo.consumers)
    return (
        f'"aie.objectfifo"({", ".join(map(_at, places))}) <{{'
        f"dimensionsFromStreamPerConsumer = #aie<bd_dim_layout_array_array[{unchanged}]>, "
        f"dimensionsToStream = #aie<bd_dim_layout_array[{dimensions}]>, disable_synchronization = false, "
        f"elemNumber = {fifo.depth} : i32, elemType = !aie.objectfifo<{_type(fifo.block)}>, plio = false, "
        f'sym_name = "{fifo.name}", via_DMA = false}}> : ({", ".join("index" for _ in places)}) -> ()'
    )


def _link(link: Link) -> str:
    return (
        f'"aie.objectfifo.link"() <{{dst_offsets = {_numbers(link.output_offsets)}, fifoIns = {_symbols(link.inputs)}, '
        f"fifoOuts = {_symbols(link.outputs)}, src_offsets = {_numbers(link.input_offsets)}}}> : () -> ()"
    )


def _buffer(place: Place, buffer: Buffer) -> str:
    name, type_ = buffer.name, _type(buffer.block)
    return f'%{name} = "aie.buffer"({_at(place)}) <{{sym_name = "{name}"}}> : (index) -> {type_}'


def _core(core: Core, blocks: dict[str, Block], spelling: Spelling) -> Lines:
    yield (
        f'%core_{core.place.column}_{core.place.row} = "aie.core"({_at(core.place)}) '
        f"<{{stack_size = {core.stack_bytes} : i32}}> ({{"
    )
    yield from _indented(
        chain(
            (_constant("zero", 0), _constant("one", 1)),
            _steps(core.program, blocks, spelling, 0),
            ('"aie.end"() : () -> ()',),
        )
    )
    yield "}) : (index) -> index"


def _steps(program: Iterable[Step], blocks: dict[str, Block], spelling: Spelling, level: int) -> Lines:
    for step in program:
        match step:
            case Loop(times, body):
                yield _constant(f"times_{level}", times)
                yield f'"scf.for"(%zero, %times_{level}, %one) ({{'
                yield f"^body(%i_{level}: index):"
                yield from _indented(chain(_steps(body, blocks, spelling, level + 1), ('"scf.yield"() : () -> ()',)))
                yield "}) : (index, index, index) -> ()"
            case Acquire(fifo, port):
                yield from _acquire(fifo, port, _type(blocks[fifo]), spelling)
            case Call(function, names):
                arguments = ", ".join(f"%{name}" for name in names)
                types = ", ".join(_type(blocks[name]) for name in names)
                yield f'"func.call"({arguments}) <{{callee = @{function}}}> : ({types}) -> ()'
            case Release(fifo, port):
                yield f'"aie.objectfifo.release"() <{{{_use(fifo, port)}, size = 1 : i32}}> : () -> ()'


def _acquire(fifo: str, port: Port, block: str, spelling: Spelling) -> Lines:
    if not spelling.views:  # the number of results is the size
        yield f'%{fifo} = "aie.objectfifo.acquire"() <{{{_use(fifo, port)}}}> : () -> {block}'
        return
    view = f"!aie.objectfifosubview<{block}>"
    yield f'%{fifo}_view = "aie.objectfifo.acquire"() <{{{_use(fifo, port)}, size = 1 : i32}}> : () -> {view}'
    yield f'%{fifo} = "aie.objectfifo.subview.access"(%{fifo}_view) <{{index = 0 : i32}}> : ({view}) -> {block}'


def _sequence(structure: Structure, sequence: Iterable[Instruction], operands: Sequence[str]) -> Lines:
    sequence = tuple(sequence)
    types = dict(zip(operands, map(_type, structure.arguments), strict=True))
    tokens = {item.operand for item in sequence if isinstance(item, Wait)}
    yield '"aie.runtime_sequence"() <{sym_name = "sequence"}> ({'
    yield f"^body({', '.join(f'%{operand}: {type_}' for operand, type_ in types.items())}):"
    yield from _indented(
        _wait(item) if isinstance(item, Wait) else _transfer(item, types[item.operand], item.operand in tokens)
        for item in sequence
    )
    yield "}) : () -> ()"


def _transfer(item: Descriptor, type_: str, token: bool) -> str:
    return (
        f'"aiex.npu.dma_memcpy_nd"(%{item.operand}) <{{id = {item.id} : i64, issue_token = {str(token).lower()}, '
        f"metadata = @{shim_fifo(item.operand, item.column)}, operandSegmentSizes = array<i32: 1, 0, 0, 0>, "
        f"static_offsets = {_array((0, 0, 0, item.offset))}, static_sizes = {_array(item.sizes)}, "
        f"static_strides = {_array(item.strides)}}}> : ({type_}) -> ()"
    )


def _wait(item: Wait) -> str:
    return f'"aiex.npu.dma_wait"() <{{symbol = @{shim_fifo(item.operand, item.column)}}}> : () -> ()'


def _constant(name: str, value: int) -> str:
    return f'%{name} = "arith.constant"() <{{value = {value} : index}}> : () -> index'


def _use(fifo: str, port: Port) -> str:
    return f"objFifo_name = @{fifo}, port = {PORTS[port]} : i32"


def _at(place: Place) -> str:
    return f"%tile_{place.column}_{place.row}"


def _type(block: Block) -> str:
    return f"memref<{'x'.join(map(str, block.shape))}x{TYPES[block.dtype]}>"


def _types(blocks: Iterable[Block]) -> str:
    return ", ".join(map(_type, blocks))


def _array(numbers: Iterable[int]) -> str:
    return f"array<i64: {', '.join(map(str, numbers))}>"


def _numbers(numbers: Iterable[int]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def _symbols(names: Iterable[str]) -> str:
    return f"[{', '.join(f'@{name}' for name in names)}]"


def _indented(lines: Iterable[str]) -> Lines:
    """Indent by two spaces; block labels keep the indentation of their operation."""
    return (line if line.startswith("^") else f"  {line}" for line in lines)
