"""Addresses of registers in the array, and the task queues and statuses of a shim tile's DMA channels.

They are the same on XDNA1 and XDNA2.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tilewhisper.kernels.xdna.instructions.fields import Field, Layout, pack, unpack

SHIM_ROW, MEMORY_ROW = 0, 1

PUSH: Layout = {"token": Field(0, 31, 31), "repeat": Field(0, 23, 16), "descriptor": Field(0, 3, 0)}
"""A word for a task queue; the repeat is written less 1."""
QUEUE_FULL = 1 << 22
"""Bit of a channel's status that is set while its queue holds four tasks."""

_ADDRESS: Layout = {"column": Field(0, 31, 25), "row": Field(0, 24, 20), "offset": Field(0, 19, 0)}


class Direction(IntEnum):
    """Of a DMA channel, as AMD names it: stream to memory, and memory to stream."""

    S2MM = 0
    MM2S = 1


class Channel(NamedTuple):
    """A DMA channel of a shim tile."""

    direction: Direction
    number: int

    def __str__(self) -> str:
        return f"{self.direction.name} {self.number}"


CHANNELS = tuple(Channel(direction, number) for direction in Direction for number in range(2))
_QUEUES = {0x1D204 + 8 * i: channel for i, channel in enumerate(CHANNELS)}
_STATUSES = {0x1D220 + 4 * i: channel for i, channel in enumerate(CHANNELS)}


class TileAddress(NamedTuple):
    column: int
    row: int
    offset: int
    """In the tile, in bytes."""


def tile_address(column: int, row: int, offset: int) -> int:
    """The address of a register in the whole array. Raises StreamError if a part does not fit its bits."""
    (address,) = pack(_ADDRESS, {"column": column, "row": row, "offset": offset})
    return address


def in_tile(address: int) -> TileAddress:
    return TileAddress(**unpack(_ADDRESS, [address]))


def queue_address(column: int, channel: Channel) -> int:
    return tile_address(column, SHIM_ROW, next(offset for offset, found in _QUEUES.items() if found == channel))


def queue_at(address: int) -> tuple[int, Channel] | None:
    """The column and channel whose task queue is at this address."""
    return _channel_at(_QUEUES, address)


def status_at(address: int) -> tuple[int, Channel] | None:
    """The column and channel whose status is at this address."""
    return _channel_at(_STATUSES, address)


def _channel_at(registers: dict[int, Channel], address: int) -> tuple[int, Channel] | None:
    column, row, offset = in_tile(address)
    return (column, registers[offset]) if row == SHIM_ROW and offset in registers else None
