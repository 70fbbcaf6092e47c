"""An instruction stream as text, one line for each operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilewhisper.kernels.xdna.array import WORD_BYTES
from tilewhisper.kernels.xdna.instructions.descriptors import descriptor_word, written_descriptor
from tilewhisper.kernels.xdna.instructions.fields import unpack
from tilewhisper.kernels.xdna.instructions.lowering import GENERATIONS
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    Header,
    MaskPoll,
    Operation,
    Stream,
    Sync,
    Write,
)
from tilewhisper.kernels.xdna.instructions.registers import (
    PUSH,
    QUEUE_FULL,
    SHIM_ROW,
    Channel,
    Direction,
    in_tile,
    queue_at,
    status_at,
)
from tilewhisper.kernels.xdna.instructions.words import encode
from tilewhisper.kernels.xdna.sequence import OPERANDS


def listing(stream: Stream) -> Iterator[str]:
    """The header, then each operation with its number. Descriptors are shown as their registers hold them."""
    size = WORD_BYTES * len(encode(stream))
    yield f"{describe_header(stream.header)}: {len(stream.operations):,} operations, {size:,} bytes"
    width = len(str(len(stream.operations)))
    for i, operation in enumerate(stream.operations):
        yield f"{i:>{width}}  {describe(operation)}"


def describe_header(header: Header) -> str:
    devices = {number: name for name, number in GENERATIONS.items()}
    device = devices.get(header.generation, f"generation {header.generation}")
    return f"{device}, {header.columns} columns x {header.rows} rows"


def describe(operation: Operation) -> str:
    match operation:
        case BlockWrite() if found := written_descriptor(operation):
            used = {name: value for name, value in found[1].items() if value}
            return f"{found[0]}: write {describe_fields(used)}"
        case BlockWrite(address, values):
            return f"write {len(values)} words at {_register(address)}"
        case AddressPatch(register, argument, offset):
            name = OPERANDS[argument] if argument < len(OPERANDS) else f"buffer {argument}"
            return f"{_register(register)}: patch the address of {name} + {offset:,} bytes"
        case Write(address, value) if queue := queue_at(address):
            task = unpack(PUSH, [value])
            token = ", with a token" if task["token"] else ""
            return f"{_channel(*queue)}: push descriptor {task['descriptor']}, {task['repeat'] + 1} times{token}"
        case Write(address, value):
            return f"write 0x{value:08x} at {_register(address)}"
        case MaskPoll(address, 0, mask) if mask == QUEUE_FULL and (queue := status_at(address)):
            return f"{_channel(*queue)}: wait until the queue has room"
        case Sync(column, row, direction, channel, 1, 1) if row == SHIM_ROW and direction in set(Direction):
            return f"{_channel(column, Channel(Direction(direction), channel))}: wait for a token"
        case _:
            return str(operation)


def describe_fields(fields: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in fields.items()) or "other unused bits"


def _channel(column: int, channel: Channel) -> str:
    return f"column {column}, {channel}"


def _register(address: int) -> str:
    if found := descriptor_word(address):
        return f"{found[0]}, word {found[1]}"
    column, row, offset = in_tile(address)
    return f"column {column}, row {row}, 0x{offset:05x}"
