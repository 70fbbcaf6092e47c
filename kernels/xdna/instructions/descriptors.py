"""Buffer descriptors as the registers of a tile hold them, the same on XDNA1 and XDNA2.

Steps are written less 1, as is the size of the iteration; other sizes are written as they are. All count 32-bit words.
The third dimension of a shim tile's descriptor has no size: the descriptor's length ends it.
"""

from __future__ import annotations

from typing import NamedTuple

from tilewhisper.kernels.xdna.instructions.fields import Field, Layout, pack, unpack
from tilewhisper.kernels.xdna.instructions.operations import BlockWrite
from tilewhisper.kernels.xdna.instructions.registers import MEMORY_ROW, SHIM_ROW, in_tile, tile_address

DESCRIPTOR_WORDS = 8
DESCRIPTOR_BYTES = 4 * DESCRIPTOR_WORDS

SHIM_DESCRIPTOR: Layout = {
    "length": Field(0, 31, 0),
    "address_low": Field(1, 31, 2),
    "enable_packet": Field(2, 30, 30),
    "out_of_order_id": Field(2, 29, 24),
    "packet_id": Field(2, 23, 19),
    "packet_type": Field(2, 18, 16),
    "address_high": Field(2, 15, 0),
    "secure": Field(3, 30, 30),
    "d0_size": Field(3, 29, 20),
    "d0_step": Field(3, 19, 0),
    "burst": Field(4, 31, 30),
    "d1_size": Field(4, 29, 20),
    "d1_step": Field(4, 19, 0),
    "smid": Field(5, 31, 28),
    "ax_cache": Field(5, 27, 24),
    "ax_qos": Field(5, 23, 20),
    "d2_step": Field(5, 19, 0),
    "iteration_current": Field(6, 31, 26),
    "iteration_size": Field(6, 25, 20),
    "iteration_step": Field(6, 19, 0),
    "suppress_last": Field(7, 31, 31),
    "next_descriptor": Field(7, 30, 27),
    "use_next": Field(7, 26, 26),
    "valid": Field(7, 25, 25),
    "release_value": Field(7, 24, 18),
    "release_lock": Field(7, 16, 13),
    "acquire_enable": Field(7, 12, 12),
    "acquire_value": Field(7, 11, 5),
    "acquire_lock": Field(7, 3, 0),
}

MEMORY_DESCRIPTOR: Layout = {
    "length": Field(0, 16, 0),
    "next_descriptor": Field(1, 25, 20),
    "use_next": Field(1, 19, 19),
    "address": Field(1, 18, 0),
    "d0_size": Field(2, 26, 17),
    "d0_step": Field(2, 16, 0),
    "d1_size": Field(3, 26, 17),
    "d1_step": Field(3, 16, 0),
    "d2_step": Field(4, 16, 0),
    "iteration_current": Field(6, 28, 23),
    "iteration_size": Field(6, 22, 17),
    "iteration_step": Field(6, 16, 0),
    "valid": Field(7, 31, 31),
    "release_value": Field(7, 30, 24),
    "release_lock": Field(7, 23, 16),
    "acquire_enable": Field(7, 15, 15),
    "acquire_value": Field(7, 14, 8),
    "acquire_lock": Field(7, 7, 0),
}
"""The fields that published streams show."""


class _Tile(NamedTuple):
    name: str
    offsets: range
    """Of the descriptors, in bytes."""
    layout: Layout


_TILES = {
    SHIM_ROW: _Tile("shim tile", range(0x1D000, 0x1D200, DESCRIPTOR_BYTES), SHIM_DESCRIPTOR),
    MEMORY_ROW: _Tile("memory tile", range(0xA0000, 0xA0600, DESCRIPTOR_BYTES), MEMORY_DESCRIPTOR),
}


class Place(NamedTuple):
    """One descriptor of the array."""

    column: int
    row: int
    number: int

    def __str__(self) -> str:
        return f"column {self.column}, {_TILES[self.row].name}, descriptor {self.number}"


def descriptor_address(place: Place) -> int:
    """The address of a descriptor's first word. Raises IndexError if its tile has no such descriptor."""
    return tile_address(place.column, place.row, _TILES[place.row].offsets[place.number])


def descriptor_write(place: Place, values: dict[str, int]) -> BlockWrite:
    """The operation that writes a descriptor; fields that are not named are 0."""
    return BlockWrite(descriptor_address(place), pack(_TILES[place.row].layout, values, DESCRIPTOR_WORDS))


def descriptor_word(address: int) -> tuple[Place, int] | None:
    """The descriptor that has a word at this address, and the word's number."""
    column, row, offset = in_tile(address)
    tile = _TILES.get(row)
    if not tile or offset not in range(tile.offsets.start, tile.offsets.stop):
        return None
    number, byte = divmod(offset - tile.offsets.start, DESCRIPTOR_BYTES)
    return Place(column, row, number), byte // 4


def written_descriptor(write: BlockWrite) -> tuple[Place, dict[str, int]] | None:
    """The descriptor that the operation writes as a whole, and its fields."""
    found = descriptor_word(write.address)
    if not found or found[1] or len(write.values) != DESCRIPTOR_WORDS:
        return None
    return found[0], unpack(_TILES[found[0].row].layout, write.values)
