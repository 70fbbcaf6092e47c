"""Compare a built instruction stream with the design it was built for.

A compiler may choose a few things (`lowering.Choices`), and may wait for room in a queue before a push. What it chose
is read from the stream, which then must be exactly the design's: a choice that changes within a stream is a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from tilewhisper.kernels.xdna.instructions.descriptors import written_descriptor
from tilewhisper.kernels.xdna.instructions.fields import StreamError
from tilewhisper.kernels.xdna.instructions.listing import describe, describe_fields, describe_header
from tilewhisper.kernels.xdna.instructions.lowering import (
    DIRECTIONS,
    ChannelUser,
    Choices,
    channel_user,
    stream_of,
    usual_channels,
)
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    MaskPoll,
    Operation,
    Stream,
    Write,
)
from tilewhisper.kernels.xdna.instructions.registers import QUEUE_FULL, SHIM_ROW, in_tile, queue_at, status_at
from tilewhisper.kernels.xdna.instructions.words import decode
from tilewhisper.kernels.xdna.sequence import Plan


def check_stream(data: bytes, plan: Plan) -> None:
    """Check the bytes of a built stream against its design. Raises StreamError with the first difference."""
    if reason := next(differences(decode(data), plan), None):
        raise StreamError(reason)


def differences(found: Stream, plan: Plan) -> Iterator[str]:
    """What differs from the design's stream, in order."""
    names = [operand.name for operand in plan.design.operands]
    numbered = [(i, each) for i, each in enumerate(found.operations) if not _waits_for_room(each, plan)]
    choices = _choices([operation for _, operation in numbered], plan)
    expected = stream_of(plan, choices)
    if found.header != expected.header:
        yield f"it is for {describe_header(found.header)}, and the design for {describe_header(expected.header)}"
    yield from _shared_channels(plan, choices)
    for (number, operation), required in zip(numbered, expected.operations, strict=False):
        if operation != required:
            yield f"operation {number} {_difference(operation, required, names)}"
    for required in expected.operations[len(numbered) :]:
        yield f"it ends before the design's operation '{describe(required, names)}'"
    for number, operation in numbered[len(expected.operations) :]:
        yield f"operation {number} '{describe(operation, names)}' comes after the design's last one"


def _choices(operations: list[Operation], plan: Plan) -> Choices:
    """The choices that a stream shows first."""
    written = [written_descriptor(each) for each in operations if isinstance(each, BlockWrite)]
    fields = [values for place, values in filter(None, written) if place.row == SHIM_ROW]
    default = Choices()
    return Choices(
        channels=_channels(operations, plan),
        ax_cache=fields[0]["ax_cache"] if fields else default.ax_cache,
        linear=not fields or any(not each["d0_size"] for each in fields),
    )


def _shared_channels(plan: Plan, choices: Choices) -> Iterator[str]:
    """Operands of one direction that a column moves through the same channel."""
    channels = {**usual_channels(plan), **choices.channels}
    for direction in DIRECTIONS:
        names = [operand.name for operand in plan.design.operands if operand.direction == direction]
        for first, second in combinations(names, 2):
            if (number := channels[first, True]) == channels[second, True]:
                yield f"{first} and {second} share the channel {DIRECTIONS[direction].name} {number}"


def _channels(operations: list[Operation], plan: Plan) -> dict[ChannelUser, int]:
    """The channel of the first push after a patch of each operand's address."""
    channels: dict[ChannelUser, int] = {}
    operands = plan.design.operands
    for patched, pushed in pairwise(operations):
        if not (isinstance(patched, AddressPatch) and isinstance(pushed, Write) and patched.argument < len(operands)):
            continue
        operand = operands[patched.argument]
        column, direction = in_tile(patched.register).column, DIRECTIONS[operand.direction]
        if (queue := queue_at(pushed.address)) and queue[0] == column and queue[1].direction == direction:
            channels.setdefault(channel_user(plan, operand.name, column), queue[1].number)
    return channels


def _waits_for_room(operation: Operation, plan: Plan) -> bool:
    """Whether it waits only until a queue of one of the design's columns is not full."""
    if not isinstance(operation, MaskPoll) or (operation.value, operation.mask) != (0, QUEUE_FULL):
        return False
    status = status_at(operation.address)
    return status is not None and status[0] < plan.design.columns


def _difference(found: Operation, expected: Operation, names: Sequence[str]) -> str:
    if isinstance(found, BlockWrite) and isinstance(expected, BlockWrite):
        ours, theirs = written_descriptor(expected), written_descriptor(found)
        if ours and theirs and ours[0] == theirs[0]:
            wrong = [name for name, value in ours[1].items() if theirs[1][name] != value]
            has, needs = ({name: fields[name] for name in wrong} for fields in (theirs[1], ours[1]))
            return f"({ours[0]}) has {describe_fields(has)}, and the design {describe_fields(needs)}"
    return f"is '{describe(found, names)}', and the design has '{describe(expected, names)}'"
