"""The operations of an instruction stream, as the firmware executes them one after the other. Data only.

Addresses are register addresses of the whole array (`registers.tile_address`); values and masks are 32-bit words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Write:
    address: int
    value: int


@dataclass(frozen=True)
class BlockWrite:
    """Write consecutive registers. Column and row are 0 unless the compiler's input named the tile."""

    address: int
    values: tuple[int, ...]
    column: int = 0
    row: int = 0


@dataclass(frozen=True)
class MaskWrite:
    """Write the bits of the mask."""

    address: int
    value: int
    mask: int


@dataclass(frozen=True)
class MaskPoll:
    """Wait until register & mask == value."""

    address: int
    value: int
    mask: int


@dataclass(frozen=True)
class NoOperation:
    pass


@dataclass(frozen=True)
class Preempt:
    """A point at which the firmware may switch to another context."""

    level: int


@dataclass(frozen=True)
class LoadConfiguration:
    """Load a configuration of the array (a PDI) of `size` bytes at a 64-bit address."""

    id: int
    size: int
    address: int


@dataclass(frozen=True)
class Sync:
    """Wait for one token of a finished task of this channel, in each of `columns` x `rows` tiles."""

    column: int
    row: int
    direction: int
    """`registers.Direction`."""
    channel: int
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True)
class AddressPatch:
    """Put the address of a host buffer, plus an offset in bytes, into a register and the one after it."""

    register: int
    argument: int
    """Number of the buffer among the arguments of the runtime sequence."""
    offset: int


Operation = (
    Write
    | BlockWrite
    | MaskWrite
    | MaskPoll
    | NoOperation
    | Preempt
    | LoadConfiguration
    | Sync
    | AddressPatch
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The array for which a stream was made."""

    generation: int
    columns: int
    rows: int = 6
    """Of all tiles: shim, memory and cores."""
    memory_rows: int = 1


@dataclass(frozen=True)
class Stream:
    header: Header
    operations: tuple[Operation, ...]
