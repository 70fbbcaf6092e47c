"""A `Stream` as 32-bit words, and words as a `Stream`: the transaction format 0.1 of the NPU's firmware.

A header of four words (array, columns, number of operations, bytes of everything) is followed by the operations. The
low byte of an operation's first word is its code. `decode` accepts exactly what `encode` writes, so no bit is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import WORD_BYTES
from tilewhisper.kernels.xdna.instructions.fields import WORD_BITS, Field, Layout, StreamError, pack, unpack
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    Header,
    LoadConfiguration,
    MaskPoll,
    MaskWrite,
    NoOperation,
    Operation,
    Preempt,
    Stream,
    Sync,
    Write,
)

Words = npt.NDArray[np.uint32]

_HEADER_WORDS = 4
_HEADER: Layout = {
    "rows": Field(0, 31, 24),
    "generation": Field(0, 23, 16),
    "minor_version": Field(0, 15, 8),
    "major_version": Field(0, 7, 0),
    "memory_rows": Field(1, 15, 8),
    "columns": Field(1, 7, 0),
    "operations": Field(2, 31, 0),
    "bytes": Field(3, 31, 0),
}
_MAJOR, _MINOR = 0, 1


class _Code(IntEnum):
    WRITE = 0
    BLOCK_WRITE = 1
    MASK_WRITE = 3
    MASK_POLL = 4
    NO_OPERATION = 5
    PREEMPT = 6
    LOAD = 8
    SYNC = 128
    PATCH = 129


_WIDTHS = {
    _Code.WRITE: 6,
    _Code.MASK_WRITE: 7,
    _Code.MASK_POLL: 7,
    _Code.NO_OPERATION: 1,
    _Code.PREEMPT: 1,
    _Code.LOAD: 4,
    _Code.SYNC: 4,
    _Code.PATCH: 12,
}
"""Code -> words, of the operations whose length is fixed."""
_CODE = 0xFF
_BLOCK_HEADER = 4
"""Words of a block write before its values."""

_TILE: Layout = {"row": Field(0, 15, 8), "column": Field(0, 7, 0)}
_PREEMPTION: Layout = {"level": Field(0, 15, 8), "code": Field(0, 7, 0)}
_LOADED: Layout = {"id": Field(0, 31, 16), "code": Field(0, 15, 0)}
_SYNC_FIELDS: Layout = {
    "column": Field(0, 23, 16),
    "row": Field(0, 15, 8),
    "direction": Field(0, 7, 0),
    "channel": Field(1, 31, 24),
    "columns": Field(1, 23, 16),
    "rows": Field(1, 15, 8),
}


def encode(stream: Stream) -> Words:
    """The words of a stream. Raises StreamError if a value does not fit its field."""
    body = [word for operation in stream.operations for word in _words_of(operation)]
    values = vars(stream.header) | {
        "major_version": _MAJOR,
        "minor_version": _MINOR,
        "operations": len(stream.operations),
        "bytes": WORD_BYTES * (_HEADER_WORDS + len(body)),
    }
    words = (*pack(_HEADER, values, _HEADER_WORDS), *body)
    if too_large := next((word for word in words if word not in range(1 << WORD_BITS)), None):
        raise StreamError(f"{too_large:,} is not a word of {WORD_BITS} bits")
    return np.array(words, dtype="<u4")


def decode(data: bytes) -> Stream:
    """The stream of a file's bytes. Raises StreamError if they are not exactly what `encode` writes."""
    if len(data) % WORD_BYTES or len(data) < WORD_BYTES * _HEADER_WORDS:
        raise StreamError(f"an instruction stream has at least {_HEADER_WORDS} words of 4 bytes, got {len(data)} bytes")
    words = np.frombuffer(data, "<u4").tolist()
    fields = unpack(_HEADER, words)
    version = fields["major_version"], fields["minor_version"]
    if version != (_MAJOR, _MINOR):
        raise StreamError(f"the header has version {version[0]}.{version[1]}, and this version reads {_MAJOR}.{_MINOR}")
    if fields["bytes"] != len(data):
        raise StreamError(f"the header states {fields['bytes']:,} bytes, and there are {len(data):,}")
    operations = _operations(words)
    if fields["operations"] != len(operations):
        raise StreamError(f"the header states {fields['operations']:,} operations, and there are {len(operations):,}")
    header = Header(**{name: fields[name] for name in ("generation", "columns", "rows", "memory_rows")})
    stream = Stream(header, operations)
    if encode(stream).tolist() != words:
        raise StreamError("the header sets bits that have no meaning")
    return stream


def _operations(words: list[int]) -> tuple[Operation, ...]:
    operations: list[Operation] = []
    at = _HEADER_WORDS
    while at < len(words):
        place = f"operation {len(operations)}, at word {at},"
        width = _width(words[at : at + _BLOCK_HEADER], place)
        found = words[at : at + width]
        if len(found) < width:
            raise StreamError(f"{place} has {width} words, and {len(found)} are left")
        operation = _operation(found)
        if list(_words_of(operation)) != found:
            raise StreamError(f"{place} sets words or bits that have no meaning")
        operations.append(operation)
        at += width
    return tuple(operations)


def _width(words: Sequence[int], place: str) -> int:
    """The words of the operation that begins here."""
    try:
        code = _Code(words[0] & _CODE)
    except ValueError as unknown:
        raise StreamError(f"{place} has the code {words[0] & _CODE}, which this version does not know") from unknown
    if code != _Code.BLOCK_WRITE:
        return _WIDTHS[code]
    size = words[_BLOCK_HEADER - 1] if len(words) == _BLOCK_HEADER else 0
    if size % WORD_BYTES or size < WORD_BYTES * _BLOCK_HEADER:
        raise StreamError(f"{place} is a block write of {size} bytes")
    return size // WORD_BYTES


def _words_of(operation: Operation) -> Sequence[int]:
    match operation:
        case Write(address, value):
            return _Code.WRITE, 0, address, 0, value, _size(_Code.WRITE)
        case BlockWrite(address, values, column, row):
            tile = pack(_TILE, {"column": column, "row": row})
            return _Code.BLOCK_WRITE, *tile, address, WORD_BYTES * (_BLOCK_HEADER + len(values)), *values
        case MaskWrite(address, value, mask):
            return _Code.MASK_WRITE, 0, address, 0, value, mask, _size(_Code.MASK_WRITE)
        case MaskPoll(address, value, mask):
            return _Code.MASK_POLL, 0, address, 0, value, mask, _size(_Code.MASK_POLL)
        case NoOperation():
            return (_Code.NO_OPERATION,)
        case Preempt(level):
            return pack(_PREEMPTION, {"code": _Code.PREEMPT, "level": level})
        case LoadConfiguration(number, size, address):
            return *pack(_LOADED, {"code": _Code.LOAD, "id": number}), size, *_halves(address)
        case Sync():
            return _Code.SYNC, _size(_Code.SYNC), *pack(_SYNC_FIELDS, vars(operation), 2)
        case AddressPatch(register, argument, offset):
            return _Code.PATCH, _size(_Code.PATCH), 0, 0, 0, 0, register, 0, argument, 0, *_halves(offset)


def _operation(words: list[int]) -> Operation:
    """The operation of these words. What it does not keep is found when it is encoded again."""
    match _Code(words[0] & _CODE):
        case _Code.WRITE:
            return Write(words[2], words[4])
        case _Code.BLOCK_WRITE:
            return BlockWrite(words[2], tuple(words[4:]), **unpack(_TILE, words[1:]))
        case _Code.MASK_WRITE:
            return MaskWrite(words[2], words[4], words[5])
        case _Code.MASK_POLL:
            return MaskPoll(words[2], words[4], words[5])
        case _Code.NO_OPERATION:
            return NoOperation()
        case _Code.PREEMPT:
            return Preempt(unpack(_PREEMPTION, words)["level"])
        case _Code.LOAD:
            return LoadConfiguration(unpack(_LOADED, words)["id"], words[1], _whole(words[2:]))
        case _Code.SYNC:
            return Sync(**unpack(_SYNC_FIELDS, words[2:]))
        case _Code.PATCH:
            return AddressPatch(words[6], words[8], _whole(words[10:]))


def _size(code: _Code) -> int:
    return WORD_BYTES * _WIDTHS[code]


def _halves(value: int) -> tuple[int, int]:
    """The low and the high word of a 64-bit value."""
    return value & (1 << WORD_BITS) - 1, value >> WORD_BITS


def _whole(halves: list[int]) -> int:
    return halves[0] | halves[1] << WORD_BITS
