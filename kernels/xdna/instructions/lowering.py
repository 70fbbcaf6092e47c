"""The instruction stream of one launch, from the transfers of its runtime sequence.

Each transfer becomes three operations: write a shim tile's descriptor, patch the buffer's address into it, push it to
the queue of its channel. A wait becomes a sync. mlir-aie lowers `dma_memcpy_nd` and `dma_wait` to the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from tilewhisper.kernels.xdna.array import DTYPE_BYTES, WORD_BYTES, Device
from tilewhisper.kernels.xdna.instructions.descriptors import Place, descriptor_write
from tilewhisper.kernels.xdna.instructions.fields import StreamError, pack
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    Header,
    Operation,
    Stream,
    Sync,
    Write,
)
from tilewhisper.kernels.xdna.instructions.registers import (
    MEMORY_ROW,
    PUSH,
    SHIM_ROW,
    Channel,
    Direction,
    queue_address,
)
from tilewhisper.kernels.xdna.row_plan import RowPlan
from tilewhisper.kernels.xdna.sequence import Descriptor, Four, Plan, Wait, a_rows, runtime_sequence

GENERATIONS: Mapping[str, int] = {"xdna1": 3, "xdna2": 4}
"""Device -> its number in a stream's header."""

DIRECTIONS: Mapping[str, Direction] = {"to array": Direction.MM2S, "from array": Direction.S2MM}

ChannelUser = tuple[str, bool]
"""An operand, and whether its column has all operands: some columns of a product send no A, and columns that send the
same operands use the same channels."""

_BURST_OF_256_BYTES = 2
_TRANSLATED_BUFFERS = 5
_UNTRANSLATED = 0x80000000


@dataclass(frozen=True)
class Choices:
    """What a compiler is free to choose; the defaults are those of the published streams."""

    channels: Mapping[ChannelUser, int] = field(default_factory=dict)
    """Those that differ from `usual_channels`."""
    ax_cache: int = 2
    linear: bool = True
    """Write a contiguous pattern as one run without dimensions, as newer releases do."""


def stream_of(plan: Plan, choices: Choices | None = None) -> Stream:
    """The stream of one launch. Raises StreamError if a value does not fit its field."""
    return Stream(header_of(plan.device), tuple(_operations(plan, choices or Choices())))


def header_of(device: Device) -> Header:
    return Header(GENERATIONS[device.name], device.columns, rows=MEMORY_ROW + 1 + device.rows)


def channel_user(plan: Plan, operand: str, column: int) -> ChannelUser:
    """Who uses the channel of an operand in a column."""
    return operand, isinstance(plan, RowPlan) or bool(a_rows(column, plan.geometry))


def usual_channels(plan: Plan) -> dict[ChannelUser, int]:
    """The channels in the order of the operands that a column has, from 0 in each direction."""
    channels: dict[ChannelUser, int] = {}
    for complete in (True, False):
        present = [operand for operand in plan.design.operands if complete or operand.name != "A"]
        for direction in DIRECTIONS:
            names = [operand.name for operand in present if operand.direction == direction]
            channels |= {(name, complete): number for number, name in enumerate(names)}
    return channels


def _operations(plan: Plan, choices: Choices) -> Iterator[Operation]:
    sequence, operands = runtime_sequence(plan), plan.design.operands
    numbers = {operand.name: number for number, operand in enumerate(operands)}
    channels = {**usual_channels(plan), **choices.channels}
    awaited = {item.operand for item in sequence if isinstance(item, Wait)}
    for item in sequence:
        operand = operands[numbers[item.operand]]
        number = channels[channel_user(plan, item.operand, item.column)]
        channel = Channel(DIRECTIONS[operand.direction], number)
        if isinstance(item, Wait):
            yield Sync(item.column, SHIM_ROW, channel.direction, channel.number)
        else:
            token = item.operand in awaited
            yield from transfer(item, numbers[item.operand], operand.dtype, channel, choices, token=token)


def transfer(
    item: Descriptor, argument: int, dtype: str, channel: Channel, choices: Choices, *, token: bool
) -> tuple[BlockWrite, AddressPatch, Write]:
    """Write, patch and push the descriptor of one transfer of the buffer `argument`; results always have a token."""
    values = descriptor_values(item.sizes, item.strides, dtype, linear=choices.linear) | {"ax_cache": choices.ax_cache}
    written = descriptor_write(Place(item.column, SHIM_ROW, item.id), values)
    return (
        written,
        patch(written.address + WORD_BYTES, argument, item.offset * DTYPE_BYTES[dtype]),
        push(item.column, channel, item.id, repeat=item.sizes[0], token=token or channel.direction == Direction.S2MM),
    )


def descriptor_values(sizes: Four, strides: Four, dtype: str, *, linear: bool = True) -> dict[str, int]:
    """The fields of a shim tile's descriptor for sizes and strides in elements, outermost first.

    An outermost stride of 0 is a repeat of the push only. Dimensions of size 1 have no step. Raises StreamError if a
    size or stride is no whole number of words.
    """
    repeat, d2, d1, run = sizes
    words = _words(run, dtype)
    steps = [_words(stride, dtype) - 1 if size > 1 else 0 for size, stride in zip(sizes[:3], strides[:3], strict=True)]
    values = {"length": prod((d2, d1, words)), "burst": _BURST_OF_256_BYTES, "valid": 1}
    if not (linear and _is_contiguous(sizes, strides)):
        values |= {"d0_size": words, "d1_size": d1, "d1_step": steps[2], "d2_step": steps[1]}
    if repeat > 1 and strides[0]:
        values |= {"iteration_size": repeat - 1, "iteration_step": steps[0]}
    return values


def patch(register: int, argument: int, offset: int) -> AddressPatch:
    """Patch a host buffer's address plus `offset` bytes. Raises StreamError if the offset is no whole word.

    The firmware translates the addresses of the first five buffers only; others need a mark in their offset.
    """
    if offset % WORD_BYTES:
        raise StreamError(f"a transfer starts {offset:,} bytes into its buffer, not at a multiple of {WORD_BYTES}")
    return AddressPatch(register, argument, offset + (_UNTRANSLATED if argument >= _TRANSLATED_BUFFERS else 0))


def push(column: int, channel: Channel, descriptor: int, *, repeat: int = 1, token: bool = False) -> Write:
    """Start a descriptor's transfer `repeat` times."""
    (value,) = pack(PUSH, {"token": int(token), "repeat": repeat - 1, "descriptor": descriptor})
    return Write(queue_address(column, channel), value)


def _is_contiguous(sizes: Four, strides: Four) -> bool:
    """Whether the three inner dimensions visit consecutive elements."""
    _, d2, d1, run = sizes
    _, outer, inner, one = strides
    return one == 1 and (d1 == 1 or inner == run) and (d2 == 1 or outer == run * d1)


def _words(elements: int, dtype: str) -> int:
    size = elements * DTYPE_BYTES[dtype]
    if size % WORD_BYTES:
        raise StreamError(f"{elements:,} elements of {dtype} are not a whole number of 32-bit words")
    return size // WORD_BYTES
