"""`pyxrt` with the bindings of XRT 2.21.75, for an emulated device.

`make` returns a module object with the names of `SURFACE` and, for tests, `emulation`: the `Machine` behind it. Every
call makes a module with its own state. Names, positional arguments, return types and the texts of errors (plain
`RuntimeError`; `TypeError` for arguments that match no overload) equal the bindings'.

The pitfalls equal the bindings' too:
- `kernel(...)` leaves an argument of a wrong type unset, without an error.
- `map()` does not keep its buffer alive; freed memory reads as 0xDB.
- A buffer's host and device side differ until `sync`.
- `write` copies from the start of the memory, whatever the strides of the array.
- A buffer of another memory group than its argument's is replaced by a copy: its results are lost.
- A run does not keep its buffers alive; run, run list and kernel do keep the context.
- A run in a run list belongs to it until the list is dropped. A list's `wait()` raises if a run fails.
- A binary of another K completes with garbage, or hangs if it needs more data than arrives.

Operations that would crash or block the process raise `EmulatedCrash`, which is not an `Exception`: a buffer for an
argument that the kernel does not have, `wait()` and `wait(0)` on a run that hangs, a sub-buffer of a sub-buffer. Time
is not emulated: `wait(ms)` on a hanging run returns at once.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tilewhisper.kernels.xdna.array import Device as Npu
from tilewhisper.kernels.xdna.emulated.binding import check
from tilewhisper.kernels.xdna.emulated.buffers import Bo
from tilewhisper.kernels.xdna.emulated.contexts import Device, HwContext, Kernel, Uuid, Xclbin
from tilewhisper.kernels.xdna.emulated.device import Cores, Tier
from tilewhisper.kernels.xdna.emulated.machine import EmulatedCrash, Faults, Machine
from tilewhisper.kernels.xdna.emulated.runs import Run, RunList
from tilewhisper.kernels.xdna.emulated.surface import (
    SURFACE,
    ert_cmd_state,
    xclBOSyncDirection,
    xrt_info_device,
    xrt_msg_level,
)

__all__ = ["SURFACE", "EmulatedCrash", "Faults", "make"]


def make(device: Npu, tier: Tier = "fast", faults: Faults | None = None, cores: Cores | None = None) -> Any:
    """A new module `pyxrt` on a machine with this NPU, whose cores run as `EmulatedDevice` says."""
    machine = Machine(device, tier, faults or Faults(), cores)
    module = ModuleType("pyxrt", "The emulated pyxrt: no hardware behind it.")
    for cls in (Uuid, Device, Xclbin, HwContext, Kernel, Bo, Run, RunList):
        name = cls.public_name
        if name != "runlist" or not machine.faults.no_runlist:
            setattr(module, name, type(name, (cls,), {"machine": machine, "module": module, "__module__": "pyxrt"}))
    for enum in (xclBOSyncDirection, ert_cmd_state, xrt_info_device, xrt_msg_level):
        setattr(module, enum.__name__, enum)
    names: dict[str, Any] = {
        "XCL_BO_FLAGS_NONE": 0,
        "enumerate_devices": lambda: int(machine.is_visible),
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
