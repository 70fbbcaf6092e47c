"""An instruction stream as text, one line for each operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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

_PATTERN = {"length", "d0_size", "d0_step", "d1_size", "d1_step", "d2_step", "iteration_size", "iteration_step"}


def listing(stream: Stream, operands: Sequence[str] = OPERANDS) -> Iterator[str]:
    """The header, then each operation with its number. Sizes and steps are in 32-bit words."""
    size = WORD_BYTES * len(encode(stream))
    yield f"{describe_header(stream.header)}: {len(stream.operations):,} operations, {size:,} bytes"
    width = len(str(len(stream.operations)))
    for i, operation in enumerate(stream.operations):
        yield f"{i:>{width}}  {describe(operation, operands)}"


def describe_header(header: Header) -> str:
    devices = {number: name for name, number in GENERATIONS.items()}
    device = devices.get(header.generation, f"generation {header.generation}")
    return f"{device}, {header.columns} columns x {header.rows} rows"


def describe(operation: Operation, operands: Sequence[str] = OPERANDS) -> str:
    match operation:
        case BlockWrite() if found := written_descriptor(operation):
            return f"{found[0]}: write {_pattern(found[1])}"
        case BlockWrite(address, values):
            return f"write {len(values)} words at {_register(address)}"
        case AddressPatch(register, argument, offset):
            name = operands[argument] if argument < len(operands) else f"buffer {argument}"
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
    """The fields as registers hold them."""
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in fields.items()) or "unused bits only"


def _pattern(fields: Mapping[str, int]) -> str:
    """The words that a descriptor visits, with plain sizes and steps, then the fields that say something else."""
    length, run, rows = fields["length"], fields["d0_size"], fields["d1_size"]
    text = f"{length:,} words"
    if run and rows:
        steps = ", ".join(f"{fields[name] + 1:,}" for name in ("d2_step", "d1_step", "d0_step"))
        text += f" as {length // (run * rows):,} x {rows:,} x {run:,} with steps {steps}"
    if fields["iteration_size"]:
        text += f", {fields['iteration_size'] + 1} times, each {fields['iteration_step'] + 1:,} words later"
    rest = {name: value for name, value in fields.items() if value and name not in _PATTERN}
    return f"{text} ({describe_fields(rest)})"


def _channel(column: int, channel: Channel) -> str:
    return f"column {column}, {channel}"


def _register(address: int) -> str:
    if found := descriptor_word(address):
        return f"{found[0]}, word {found[1]}"
    column, row, offset = in_tile(address)
    return f"column {column}, row {row}, 0x{offset:05x}"
