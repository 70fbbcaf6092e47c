"""The machine behind the emulated `pyxrt`: its device, memory, contexts, counters, and what goes wrong on request."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.emulated.container import Binary
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice, Tier

Bytes = npt.NDArray[np.uint8]

FREED = 0xDB
"""What memory that was given back reads as."""
_FIRST_ADDRESS = 0x4000000
_PAGE = 4096


class EmulatedCrash(BaseException):
    """What the real module would do here is end or stop the process, or nobody knows: a segmentation fault, a wait
    without end. No `except Exception` hides it."""


@dataclass(frozen=True)
class Faults:
    """What is to go wrong. Runs are counted from 1, over the life of the module, those in run lists included."""

    hang_at: int | tuple[int, ...] = ()
    """This run, or each of these, never ends: TIMEOUT, then ABORT for every run of that context."""
    lost_at: int | None = None
    """With this run the device is gone for good."""
    out_of_contexts: bool = False
    """Other processes hold all there are."""
    contexts_taken: int = 0
    """Or so many of them."""
    memlock: int | None = None
    """Bytes of buffers that may be held at once."""
    no_device: bool = False
    no_permission: bool = False
    """Of /dev/accel/accel0. Not to be told from `no_device` through the module."""
    no_runlist: bool = False
    """An XRT before 2.20."""


class Memory:
    """A buffer's two sides, which differ until they are synced. Reads as garbage once it is given back."""

    def __init__(self, machine: Machine, size: int) -> None:
        self.host: Bytes = np.zeros(size, np.uint8)
        self.device: Bytes = np.zeros(size, np.uint8)
        self.address = machine.take(size)
        weakref.finalize(self, _free, machine, self.host, self.device).atexit = False


def _free(machine: Machine, host: Bytes, device: Bytes) -> None:
    host.fill(FREED)
    device.fill(FREED)
    machine.bytes_held -= host.size


class Context:
    """A design on the array. Alive as long as any object of the module needs it."""

    def __init__(self, machine: Machine, binary: Binary) -> None:
        self.machine = machine
        self.binary = binary
        self.broken = False
        """A run failed: every other aborts."""
        machine.enter()
        weakref.finalize(self, machine.leave).atexit = False


class Machine:
    """State of one emulated module, and what a test may count."""

    def __init__(self, device: Device, tier: Tier, faults: Faults) -> None:
        self.device = device
        self.tier = tier
        self.faults = faults
        self.engine = EmulatedDevice(device, tier)
        self.registered: dict[UUID, Binary] = {}
        self.lost = False
        self.runs = 0
        """Started, whatever became of them."""
        self.completed = 0
        self.run_lists = 0
        """Executed."""
        self.contexts_open = 0
        self.contexts_made = 0
        self.bytes_held = 0
        self._next_address = _FIRST_ADDRESS

    @property
    def there(self) -> bool:
        """Whether this process sees the device."""
        return not (self.faults.no_device or self.faults.no_permission or self.lost)

    def need(self, ioctl: str) -> None:
        if self.lost:
            raise RuntimeError(f"DRM_IOCTL_AMDXDNA_{ioctl} IOCTL failed (err=-19): No such device")

    def take(self, size: int) -> int:
        """An address for so many bytes."""
        self.need("CREATE_BO")
        if size <= 0:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_BO IOCTL failed (err=-22): Invalid argument")
        if self.faults.memlock is not None and self.bytes_held + size > self.faults.memlock:
            raise RuntimeError(f"mmap_range(len={size}) failed (err=-11): Resource temporarily unavailable")
        self.bytes_held += size
        address = self._next_address
        self._next_address += -(-size // _PAGE) * _PAGE
        return address

    def enter(self) -> None:
        """Take one of the contexts there are."""
        self.need("CREATE_HWCTX")
        in_use = self.contexts_open + self.faults.contexts_taken
        if self.faults.out_of_contexts or in_use >= self.device.max_contexts:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-22): Invalid argument")
        self.contexts_open += 1
        self.contexts_made += 1

    def leave(self) -> None:
        self.contexts_open -= 1

    def begin_run(self) -> bool:
        """Count a run; whether it hangs."""
        self.runs += 1
        self.lost = self.lost or self.runs == self.faults.lost_at
        self.need("EXEC_CMD")
        hangs = self.faults.hang_at
        return self.runs in (hangs if isinstance(hangs, tuple) else (hangs,))
