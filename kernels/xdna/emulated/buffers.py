"""The emulated binding `bo`: buffers with a host side and a device side, and their pitfalls."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.emulated.binding import Bound, check, integer, no_overload
from tilewhisper.kernels.xdna.emulated.contexts import Device
from tilewhisper.kernels.xdna.emulated.machine import Bytes, EmulatedCrash, Memory
from tilewhisper.kernels.xdna.emulated.surface import flags, xclBOSyncDirection


class Bo(Bound):
    public_name = "bo"
    flags = flags
    normal = flags.normal
    cacheable = flags.cacheable
    device_only = flags.device_only
    host_only = flags.host_only
    p2p = flags.p2p
    svm = flags.svm

    def __init__(self, *arguments: Any) -> None:
        match arguments:
            case (Device(), size, flags() as kind, group):
                self._kind, self._group = kind, integer(group, "__init__", bits=32)
                self._memory = Memory(self.machine, integer(size, "__init__"))
                self._start, self._size, self._is_part = 0, len(self._memory.host), False
            case (Bo() as parent, size, offset):
                self._take_part(parent, integer(size, "__init__"), integer(offset, "__init__"))
            case _:
                raise no_overload("__init__")

    def _take_part(self, parent: Bo, size: int, offset: int) -> None:
        if parent._is_part:
            raise EmulatedCrash("a sub-buffer of a sub-buffer: the place of its bytes is undefined")
        if not size or offset + size > parent._size:
            raise RuntimeError("sub-buffer does not lie within its buffer: Invalid argument")
        self._kind, self._group, self._memory = parent._kind, parent._group, parent._memory
        self._start, self._size, self._is_part = offset, size, True

    @property
    def _host(self) -> Bytes:
        return self._memory.host[self._start : self._start + self._size]

    @property
    def _device(self) -> Bytes:
        return self._memory.device[self._start : self._start + self._size]

    def write(self, buffer: Any, seek: int) -> None:
        data = _memory_of(buffer)
        start = integer(seek, "write")
        if start + data.size > self._size:
            raise RuntimeError("attempting to write past buffer size")
        self._host[start : start + data.size] = data

    def read(self, size: int, skip: int) -> npt.NDArray[np.int8]:
        start, count = integer(skip, "read"), integer(size, "read")
        if start + count > self._size:
            raise RuntimeError("attempting to read past buffer size")
        return self._host[start : start + count].view(np.int8).copy()

    def map(self) -> memoryview:
        return memoryview(self._host)  # type: ignore[arg-type]

    def sync(self, direction: xclBOSyncDirection, *extent: int) -> None:
        check(direction, xclBOSyncDirection, "sync")
        if len(extent) not in (0, 2):
            raise no_overload("sync")
        self.machine.require_device("SYNC_BO")
        size, offset = (integer(value, "sync") for value in extent or (self._size, 0))
        if offset + size > self._size:
            raise RuntimeError("attempting to sync past buffer size")
        part = slice(offset, offset + size)
        if direction is xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE:
            self._device[part] = self._host[part]
        else:
            self._host[part] = self._device[part]

    def size(self) -> int:
        return self._size

    def address(self) -> int:
        return self._memory.address + self._start

    def _copy_in(self, group: int) -> Bo:
        """A new buffer in another memory group with a copy of the device side."""
        copy = object.__new__(type(self))
        copy._kind, copy._group, copy._memory = self._kind, group, Memory(self.machine, self._size)
        copy._start, copy._size, copy._is_part = 0, self._size, False
        copy._device[:] = self._device
        return copy


def _memory_of(buffer: Any) -> Bytes:
    """The bytes of the buffer's elements from the beginning of its memory; its strides are ignored."""
    try:
        array = np.asarray(memoryview(buffer))
    except TypeError:
        raise no_overload("write") from None
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    spans = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    if min(spans) < 0 or sum(spans) + array.itemsize < array.nbytes:
        raise EmulatedCrash("write() of an array that is not C-contiguous reads outside its memory")
    return np.frombuffer(ctypes.string_at(array.ctypes.data, array.nbytes), np.uint8)
