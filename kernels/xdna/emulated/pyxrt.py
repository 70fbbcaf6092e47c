"""`pyxrt` as XRT 2.21.75 binds it, in front of an emulated device.

`make` returns a module object with the names of `SURFACE` and nothing else but `emulation`, the `Machine` behind it,
for tests to count with. Every call makes a module with a state of its own. Names, positional arguments, return types
and the texts of errors (plain `RuntimeError`; `TypeError` for arguments no overload takes) are the bindings'.

The traps are the bindings' too:
- `kernel(...)` leaves an argument of a wrong type unset, and says nothing.
- `map()` does not keep its buffer alive; the memory of a dead one reads as 0xDB.
- A buffer's host and device side differ until `sync`.
- `write` copies from the start of the memory, whatever the strides of the array.
- A buffer of another memory group than its argument's is replaced by a copy: results never come back.
- A run does not keep its buffers alive; run, run list and kernel do keep the context.
- A run in a run list belongs to it until the list is dropped. A list's `wait()` raises where a run fails.
- A binary of another K completes with garbage, or hangs where it wants more data than comes.

What would end or stop the process raises `EmulatedCrash`, no `Exception`: a buffer for an argument the kernel has not,
`wait()` and `wait(0)` on a run that hangs, a sub-buffer of a sub-buffer. Time is not emulated: `wait(ms)` on a hanging
run returns at once.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.emulated.binding import Bound, check, integer, no_overload
from tilewhisper.kernels.xdna.emulated.container import Binary, unpack
from tilewhisper.kernels.xdna.emulated.device import Tier
from tilewhisper.kernels.xdna.emulated.machine import Bytes, Context, EmulatedCrash, Faults, Machine, Memory
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang
from tilewhisper.kernels.xdna.emulated.surface import (
    SURFACE,
    ert_cmd_state,
    flags,
    xclBOSyncDirection,
    xrt_info_device,
    xrt_msg_level,
)

__all__ = ["SURFACE", "EmulatedCrash", "Faults", "make"]

_TRANSACTION = 3
_INSTRUCTIONS, _LENGTH, _BUFFERS = 1, 2, 3


def make(device: Device, tier: Tier = "fast", faults: Faults | None = None) -> Any:
    """A module `pyxrt` of its own, on a machine with that NPU."""
    machine = Machine(device, tier, faults or Faults())
    module = ModuleType("pyxrt", "The emulated pyxrt: no hardware behind it.")
    for cls in (_Uuid, _Device, _Xclbin, _HwContext, _Kernel, _Bo, _Run, _RunList):
        name = cls.public_name
        if name != "runlist" or not machine.faults.no_runlist:
            setattr(module, name, type(name, (cls,), {"machine": machine, "module": module, "__module__": "pyxrt"}))
    for enum in (xclBOSyncDirection, ert_cmd_state, xrt_info_device, xrt_msg_level):
        setattr(module, enum.__name__, enum)
    names: dict[str, Any] = {
        "XCL_BO_FLAGS_NONE": 0,
        "enumerate_devices": lambda: int(machine.there),
        "log_message": _log_message,
        "emulation": machine,
    }
    for name, value in names.items():
        setattr(module, name, value)
    return module


def _log_message(level: xrt_msg_level, tag: str, message: str) -> None:
    check(level, xrt_msg_level, "log_message")
    check(tag, str, "log_message")
    check(message, str, "log_message")


class _Uuid(Bound):
    public_name = "uuid"

    def __init__(self, text: str) -> None:
        check(text, str, "__init__")
        self._value = UUID(text)

    def to_string(self) -> str:
        return str(self._value)


class _XclbinKernel:
    def __init__(self, binary: Binary) -> None:
        self._binary = binary

    def get_name(self) -> str:
        return self._binary.kernel

    def get_num_args(self) -> int:
        return self._binary.arguments


class _Xclbin(Bound):
    public_name = "xclbin"
    xclbinkernel = _XclbinKernel

    def __init__(self, path: str) -> None:
        check(path, str, "__init__")
        try:
            data = Path(path).read_bytes()
        except OSError:
            raise RuntimeError(f"Failed to open file '{path}' for reading") from None
        try:
            self._binary = unpack(data)
        except ValueError:
            raise RuntimeError("Invalid xclbin") from None

    def get_kernels(self) -> list[_XclbinKernel]:
        return [_XclbinKernel(self._binary)]

    def get_uuid(self) -> _Uuid:
        uuid: _Uuid = self.module.uuid(str(self._binary.uuid))
        return uuid

    def get_xsa_name(self) -> str:
        return ""

    def get_mems(self) -> list[Any]:
        return []


class _Device(Bound):
    public_name = "device"
    _BDF: ClassVar[str] = "0000:c6:00.1"

    def __init__(self, which: int | str = 0) -> None:
        machine = self.machine
        if isinstance(which, str):
            if not machine.there or which != self._BDF:
                raise RuntimeError(f" No such device '{which}'")
        elif not machine.there or integer(which, "__init__", bits=32) > 0:
            raise RuntimeError(f" No such device with index '{which}'")

    def register_xclbin(self, xclbin: _Xclbin) -> _Uuid:
        check(xclbin, _Xclbin, "register_xclbin")
        self.machine.registered[xclbin._binary.uuid] = xclbin._binary
        return xclbin.get_uuid()

    def get_info(self, key: xrt_info_device) -> str:
        check(key, xrt_info_device, "get_info")
        if key is xrt_info_device.bdf:
            return self._BDF
        return {"xdna1": "NPU Phoenix", "xdna2": "NPU Strix"}[self.machine.device.name]


class _HwContext(Bound):
    public_name = "hw_context"

    def __init__(self, device: _Device, uuid: _Uuid) -> None:
        check(device, _Device, "__init__")
        check(uuid, _Uuid, "__init__")
        machine = self.machine
        binary = machine.registered.get(uuid._value)
        if binary is None:
            raise RuntimeError(f"No xclbin with uuid '{uuid.to_string()}' is registered with the device")
        if binary.program.design.device != machine.device.name:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-22): Invalid argument")
        self._context = Context(machine, binary)


class _Kernel(Bound):
    public_name = "kernel"

    def __init__(self, context: _HwContext, name: str) -> None:
        check(context, _HwContext, "__init__")
        check(name, str, "__init__")
        if name != context._context.binary.kernel:
            raise RuntimeError(f"No such kernel '{name}'")
        self._context = context._context

    def group_id(self, argument: int) -> int:
        number = integer(argument, "group_id", bits=31)
        if number >= self._context.binary.arguments:
            raise IndexError(f"the kernel has no argument {number}")
        return _group(number)

    def __call__(self, *arguments: Any) -> _Run:
        run: _Run = self.module.run(self)
        for index, value in enumerate(arguments):
            with suppress(Exception):
                run.set_arg(index, value)
        run.start()
        return run


def _group(argument: int) -> int:
    """Every argument has a memory group of its own here, so that no mix-up goes unseen."""
    return (1 << 16) + argument


class _Bo(Bound):
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
            case (_Device(), size, flags() as kind, group):
                self._kind, self._group = kind, integer(group, "__init__", bits=32)
                self._memory = Memory(self.machine, integer(size, "__init__"))
                self._start, self._size, self._is_part = 0, len(self._memory.host), False
            case (_Bo() as parent, size, offset):
                self._take_part(parent, integer(size, "__init__"), integer(offset, "__init__"))
            case _:
                raise no_overload("__init__")

    def _take_part(self, parent: _Bo, size: int, offset: int) -> None:
        if parent._is_part:
            raise EmulatedCrash("a sub-buffer of a sub-buffer: nobody knows where its bytes are")
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
        self.machine.need("SYNC_BO")
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

    def _copy_in(self, group: int) -> _Bo:
        """A copy of its device side in another memory group."""
        copy = object.__new__(type(self))
        copy._kind, copy._group, copy._memory = self._kind, group, Memory(self.machine, self._size)
        copy._start, copy._size, copy._is_part = 0, self._size, False
        copy._device[:] = self._device
        return copy


def _memory_of(buffer: Any) -> Bytes:
    """As many bytes as the buffer's elements take, from where its memory begins: its strides are not asked."""
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


class _Run(Bound):
    public_name = "run"

    def __init__(self, kernel: _Kernel) -> None:
        check(kernel, _Kernel, "__init__")
        self._context = kernel._context
        self._numbers: dict[int, int] = {}
        self._buffers: dict[int, weakref.ref[_Bo]] = {}
        self._copies: dict[int, _Bo] = {}
        self._state = ert_cmd_state.ERT_CMD_STATE_NEW
        self._list: weakref.ref[_RunList] | None = None

    def set_arg(self, index: int, value: Any) -> None:
        number = integer(index, "set_arg", bits=31)
        known = number < self._context.binary.arguments
        if isinstance(value, _Bo):
            if not known:
                raise EmulatedCrash(f"segmentation fault: the kernel has no argument {number} to set a buffer to")
            if number >= _INSTRUCTIONS and value._group != _group(number):
                value = self._copies[number] = value._copy_in(_group(number))
            self._buffers[number] = weakref.ref(value)
        else:
            scalar = integer(value, "set_arg", bits=31)
            if not known:
                raise IndexError(f"the kernel has no argument {number}")
            self._numbers[number] = scalar

    def start(self) -> None:
        if self._list and self._list():
            raise RuntimeError("Run object belongs to a runlist and cannot be explicitly started")
        self._execute()

    def wait(self, timeout_ms: int = 0) -> ert_cmd_state:
        timeout = integer(timeout_ms, "wait", bits=32)
        if self._state in (ert_cmd_state.ERT_CMD_STATE_NEW, ert_cmd_state.ERT_CMD_STATE_TIMEOUT) and not timeout:
            raise EmulatedCrash("wait() without a timeout on a run that does not end: this process waits for ever")
        if self._state is ert_cmd_state.ERT_CMD_STATE_NEW:
            return ert_cmd_state.ERT_CMD_STATE_TIMEOUT
        return self._state

    def state(self) -> ert_cmd_state:
        return self._state

    def _execute(self) -> None:
        """Emulated here and at once; only `wait` tells."""
        machine, context = self.machine, self._context
        hangs = machine.begin_run()
        if context.broken:
            self._state = ert_cmd_state.ERT_CMD_STATE_ABORT
            return
        try:
            if hangs:
                raise DeviceHang("asked to")
            self._launch()
            machine.completed += 1
            self._state = ert_cmd_state.ERT_CMD_STATE_COMPLETED
        except DeviceHang:
            context.broken, self._state = True, ert_cmd_state.ERT_CMD_STATE_TIMEOUT
        except DeviceFault:
            context.broken, self._state = True, ert_cmd_state.ERT_CMD_STATE_ERROR

    def _launch(self) -> None:
        """What is not set is 0: an unknown opcode, no instructions, or a buffer at address 0."""
        if self._numbers.get(0, 0) != _TRANSACTION:
            raise DeviceFault("no opcode the firmware knows")
        if not (length := self._numbers.get(_LENGTH, 0)):
            return
        stream = self._device_memory(_INSTRUCTIONS)
        if length > stream.size:
            raise DeviceFault("instructions are read past their buffer")
        operands = (self._device_memory(_BUFFERS + place) for place in range(3))
        self.machine.engine.execute(self._context.binary.program, stream[:length].tobytes(), *operands)

    def _device_memory(self, argument: int) -> Bytes:
        reference = self._buffers.get(argument)
        buffer = reference() if reference else None
        if buffer is None:
            raise DeviceFault(f"argument {argument} is no buffer, or one that was given back")
        return buffer._device


class _RunList(Bound):
    public_name = "runlist"

    def __init__(self, context: _HwContext) -> None:
        check(context, _HwContext, "__init__")
        self._context = context._context
        self._runs: list[_Run] = []
        self._running = False

    def add(self, run: _Run) -> None:
        check(run, _Run, "add")
        self._need_idle("adding run objects")
        if run._list and run._list():
            raise RuntimeError("Run object already associated with a runlist")
        run._list = weakref.ref(self)
        self._runs.append(run)

    def execute(self) -> None:
        self._need_idle("submitting for execution")
        if not self._runs:
            return
        self._running = True
        self.machine.run_lists += 1
        for run in self._runs:
            run._execute()

    def wait(self) -> None:
        """Raises RuntimeError where a run failed; those after it are aborted. The driver ends one that hangs."""
        was_running, self._running = self._running, False
        if was_running and any(run._state is not ert_cmd_state.ERT_CMD_STATE_COMPLETED for run in self._runs):
            raise RuntimeError("runlist failed execution")

    def _need_idle(self, what: str) -> None:
        if self._running:
            raise RuntimeError(f"runlist must be idle before {what}, current state: running")
