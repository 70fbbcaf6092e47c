"""The emulated bindings from the xclbin file to the kernel: `uuid`, `xclbin`, `device`, `hw_context`, `kernel`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from tilewhisper.kernels.xdna.emulated.binding import Bound, check, integer
from tilewhisper.kernels.xdna.emulated.container import Binary, unpack
from tilewhisper.kernels.xdna.emulated.machine import Context
from tilewhisper.kernels.xdna.emulated.surface import xrt_info_device

_INSTRUCTIONS = 1


class Uuid(Bound):
    public_name = "uuid"

    def __init__(self, text: str) -> None:
        check(text, str, "__init__")
        self._value = UUID(text)

    def to_string(self) -> str:
        return str(self._value)


class XclbinKernel:
    def __init__(self, binary: Binary) -> None:
        self._binary = binary

    def get_name(self) -> str:
        return self._binary.kernel

    def get_num_args(self) -> int:
        return self._binary.arguments


class Xclbin(Bound):
    public_name = "xclbin"
    xclbinkernel = XclbinKernel

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

    def get_kernels(self) -> list[XclbinKernel]:
        return [XclbinKernel(self._binary)]

    def get_uuid(self) -> Uuid:
        uuid: Uuid = self.module.uuid(str(self._binary.uuid))
        return uuid

    def get_xsa_name(self) -> str:
        return ""

    def get_mems(self) -> list[Any]:
        return []


class Device(Bound):
    public_name = "device"
    _BDF: ClassVar[str] = "0000:c6:00.1"

    def __init__(self, which: int | str = 0) -> None:
        machine = self.machine
        if isinstance(which, str):
            if not machine.is_visible or which != self._BDF:
                raise RuntimeError(f" No such device '{which}'")
        elif not machine.is_visible or integer(which, "__init__", bits=32) > 0:
            raise RuntimeError(f" No such device with index '{which}'")

    def register_xclbin(self, xclbin: Xclbin) -> Uuid:
        check(xclbin, Xclbin, "register_xclbin")
        self.machine.registered[xclbin._binary.uuid] = xclbin._binary
        return xclbin.get_uuid()

    def get_info(self, key: xrt_info_device) -> str:
        check(key, xrt_info_device, "get_info")
        if key is xrt_info_device.bdf:
            return self._BDF
        return {"xdna1": "NPU Phoenix", "xdna2": "NPU Strix"}[self.machine.device.name]


class HwContext(Bound):
    public_name = "hw_context"

    def __init__(self, device: Device, uuid: Uuid) -> None:
        check(device, Device, "__init__")
        check(uuid, Uuid, "__init__")
        machine = self.machine
        binary = machine.registered.get(uuid._value)
        if binary is None:
            raise RuntimeError(f"No xclbin with uuid '{uuid.to_string()}' is registered with the device")
        if binary.program.design.device != machine.device.name:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-22): Invalid argument")
        self._context = Context(machine, binary)


class Kernel(Bound):
    public_name = "kernel"

    def __init__(self, context: HwContext, name: str) -> None:
        check(context, HwContext, "__init__")
        check(name, str, "__init__")
        if name != context._context.binary.kernel:
            raise RuntimeError(f"No such kernel '{name}'")
        self._context = context._context

    def group_id(self, argument: int) -> int:
        number = integer(argument, "group_id", bits=31)
        if number >= self._context.binary.arguments:
            raise IndexError(f"the kernel has no argument {number}")
        return group_of(number)

    def __call__(self, *arguments: Any) -> Any:
        """A started `run`, found in the emulated module: `runs` imports this file."""
        run = self.module.run(self)
        for index, value in enumerate(arguments):
            with suppress(Exception):
                run.set_arg(index, value)
        run.start()
        return run


def group_of(argument: int) -> int:
    """The memory group of an argument: mlir-aie's xclbins have one for the instructions and one for all buffers."""
    return (1 << 16) + (1 if argument == _INSTRUCTIONS else 0)
