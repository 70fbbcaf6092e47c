"""The machine behind the emulated `pyxrt`: its device, memory, contexts, counters, and injected faults."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.emulated.container import Binary
from tilewhisper.kernels.xdna.emulated.device import Cores, EmulatedDevice, Tier

Bytes = npt.NDArray[np.uint8]

FREED = 0xDB
"""The value of every byte of freed memory."""
_FIRST_ADDRESS = 0x4000000
_PAGE = 4096


class EmulatedCrash(BaseException):
    """The real module would crash or block the process here: a segmentation fault, an endless wait.

    Not an Exception, so that no `except Exception` hides it.
    """


@dataclass(frozen=True)
class Faults:
    """Faults to inject. Runs are counted from 1 over the life of the module, including runs in run lists."""

    hang_at: int | tuple[int, ...] = ()
    """Number of a run, or of several, that never ends: TIMEOUT, then ABORT for every run of that context."""
    lost_at: int | None = None
    """Number of the run at which the device is lost permanently."""
    out_of_contexts: bool = False
    """Other processes hold all contexts."""
    contexts_taken: int = 0
    """Number of contexts that other processes hold."""
    memlock: int | None = None
    """Limit of the bytes of all buffers."""
    no_device: bool = False
    no_permission: bool = False
    """For /dev/accel/accel0. The module cannot distinguish it from `no_device`."""
    no_runlist: bool = False
    """Like XRT before 2.20."""


class Memory:
    """The host and device side of a buffer, which differ until they are synced. Garbage after it is freed."""

    def __init__(self, machine: Machine, size: int) -> None:
        self.host: Bytes = np.zeros(size, np.uint8)
        self.device: Bytes = np.zeros(size, np.uint8)
        self.address = machine.allocate(size)
        weakref.finalize(self, _free, machine, self.host, self.device).atexit = False


def _free(machine: Machine, host: Bytes, device: Bytes) -> None:
    host.fill(FREED)
    device.fill(FREED)
    machine.bytes_held -= host.size


class Context:
    """A design on the array. Lives as long as any object of the module refers to it."""

    def __init__(self, machine: Machine, binary: Binary) -> None:
        self.machine = machine
        self.binary = binary
        self.broken = False
        """Whether a run failed: every later run aborts."""
        machine.enter()
        weakref.finalize(self, machine.leave).atexit = False


class Machine:
    """State of one emulated module, with counters for tests."""

    def __init__(self, device: Device, tier: Tier, faults: Faults, cores: Cores | None) -> None:
        self.device = device
        self.tier = tier
        self.faults = faults
        self.engine = EmulatedDevice(device, tier, cores)
        self.registered: dict[UUID, Binary] = {}
        self.lost = False
        self.runs = 0
        """Started, whether completed or not."""
        self.completed = 0
        self.run_lists = 0
        """Run lists executed."""
        self.contexts_open = 0
        self.contexts_made = 0
        self.bytes_held = 0
        self._next_address = _FIRST_ADDRESS

    @property
    def is_visible(self) -> bool:
        """Whether this process can see the device."""
        return not (self.faults.no_device or self.faults.no_permission or self.lost)

    def require_device(self, ioctl: str) -> None:
        """Raises RuntimeError like the driver if the device is lost."""
        if self.lost:
            raise RuntimeError(f"DRM_IOCTL_AMDXDNA_{ioctl} IOCTL failed (err=-19): No such device")

    def allocate(self, size: int) -> int:
        """The address of a new buffer of `size` bytes. Raises RuntimeError."""
        self.require_device("CREATE_BO")
        if size <= 0:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_BO IOCTL failed (err=-22): Invalid argument")
        if self.faults.memlock is not None and self.bytes_held + size > self.faults.memlock:
            raise RuntimeError(f"mmap_range(len={size}) failed (err=-11): Resource temporarily unavailable")
        self.bytes_held += size
        address = self._next_address
        self._next_address += -(-size // _PAGE) * _PAGE
        return address

    def enter(self) -> None:
        """Take a context. Raises RuntimeError if none is free."""
        self.require_device("CREATE_HWCTX")
        in_use = self.contexts_open + self.faults.contexts_taken
        if self.faults.out_of_contexts or in_use >= self.device.max_contexts:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-22): Invalid argument")
        self.contexts_open += 1
        self.contexts_made += 1

    def leave(self) -> None:
        """Give a context back."""
        self.contexts_open -= 1

    def begin_run(self) -> bool:
        """Count a run and return whether it hangs. Raises RuntimeError if the device is lost."""
        self.runs += 1
        self.lost = self.lost or self.runs == self.faults.lost_at
        self.require_device("EXEC_CMD")
        hangs = self.faults.hang_at
        return self.runs in (hangs if isinstance(hangs, tuple) else (hangs,))
