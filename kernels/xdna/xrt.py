"""The interface to XRT: the only file that imports and calls `pyxrt`.

Written against the bindings of XRT 2.21.75. The module may be real or emulated; nothing here depends on which. XRT
raises a plain `RuntimeError` for every failure; these errors are translated here.

Pitfalls in the bindings' source that this file avoids:
- `kernel.__call__` ignores arguments of a wrong type, so arguments are set one by one on a `run`.
- `map()` does not keep its buffer alive, so `Buffer` owns both the buffer and its array.
- Only `wait(milliseconds)` times out; `wait()` and `wait(0)` wait forever.
- More buffers than the xclbin declares crash the process, so their number is checked before.
- Runs, run lists and kernels keep the context alive, so they are dropped before it is rebuilt.
"""

from __future__ import annotations

import importlib
import itertools
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewhisper.kernels.base import BackendUnavailable, ProductFailed

OPCODE = 3
"""The kernel's first argument: a transaction."""
FIRST_BUFFER = 3
"""Argument number of the first operand; the others follow. 1 and 2 are the instructions and their length."""

_numbers = itertools.count()
_OPEN: weakref.WeakKeyDictionary[Any, weakref.ref[Device]] = weakref.WeakKeyDictionary()


def import_module() -> Any:
    """The real `pyxrt`. Raises BackendUnavailable if it cannot be imported."""
    try:
        return importlib.import_module("pyxrt")
    except ImportError as e:
        raise BackendUnavailable(
            f"pyxrt cannot be imported ({e}); install XRT and put its Python folder on PYTHONPATH, built for this "
            "Python (see `tilewhisper doctor` and docs/npu.md)"
        ) from e


def open_device(pyxrt: Any) -> Device:
    """The device of this module, opened once per process and closed with its last user. Raises BackendUnavailable."""
    opened = _OPEN.get(pyxrt)
    device = opened() if opened else None
    if device is None:
        device = Device(pyxrt)
        _OPEN[pyxrt] = weakref.ref(device)
    return device


class RunTimedOut(ProductFailed):
    """A run did not end in time: the design waits for data that never comes, or the array is stuck."""


class Instructions(Protocol):
    """The instruction stream of a launch on disk: `Artifact`, or a file of another tool."""

    @property
    def instructions(self) -> Path: ...

    @property
    def instruction_count(self) -> int: ...


class Device:
    """The NPU. Raises BackendUnavailable if there is none or it cannot be opened."""

    def __init__(self, pyxrt: Any) -> None:
        self.pyxrt = pyxrt
        with _unavailable("the NPU cannot be opened"):
            if pyxrt.enumerate_devices() == 0:
                raise BackendUnavailable(
                    "XRT finds no NPU: there is none, the amdxdna driver is not loaded, or this user may not open "
                    "/dev/accel/accel0 (group render); run `tilewhisper doctor` to see which"
                )
            self.handle = pyxrt.device(0)

    @property
    def name(self) -> str:
        """The device's name in XRT, such as "NPU Phoenix"."""
        return str(self.handle.get_info(self.pyxrt.xrt_info_device.name))

    @property
    def has_run_lists(self) -> bool:
        """Since XRT 2.20."""
        return hasattr(self.pyxrt, "runlist")


class Buffer:
    """Host-visible memory of the device and its mapping as bytes. Freed with this object. `number` identifies it."""

    def __init__(self, device: Device, group: int, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        pyxrt = device.pyxrt
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with _failing("a buffer of the NPU could not be allocated (is the memlock limit unlimited?)"):
            self.handle = pyxrt.bo(device.handle, size, pyxrt.bo.host_only, group)
            self.array: npt.NDArray[Any] = np.frombuffer(self.handle.map(), dtype=dtype).reshape(shape)
        self.array[...] = 0
        self.number = next(_numbers)
        self._directions = pyxrt.xclBOSyncDirection

    def to_device(self) -> None:
        with _failing("a buffer could not be sent to the NPU"):
            self.handle.sync(self._directions.XCL_BO_SYNC_BO_TO_DEVICE)

    def rows_to_device(self, rows: slice) -> None:
        """Send consecutive rows of a matrix only."""
        first, last, _ = rows.indices(len(self.array))
        size = self.array[0].nbytes
        with _failing("a part of a buffer could not be sent to the NPU"):
            self.handle.sync(self._directions.XCL_BO_SYNC_BO_TO_DEVICE, (last - first) * size, first * size)

    def from_device(self) -> None:
        with _failing("a buffer could not be read from the NPU"):
            self.handle.sync(self._directions.XCL_BO_SYNC_BO_FROM_DEVICE)


class Context:
    """A design on the array: a hardware context, its kernel, and the instructions of its launches."""

    def __init__(self, device: Device, xclbin: Path, kernel_name: str, buffers: int = 3) -> None:
        """For runs with this many buffers.

        Raises BackendUnavailable: a corrupt file, a missing kernel, too few buffers, or no free context.
        """
        pyxrt = device.pyxrt
        with _unavailable(f"the design {xclbin} cannot be loaded"):
            binary = pyxrt.xclbin(str(xclbin))
            kernels = {kernel.get_name(): kernel for kernel in binary.get_kernels()}
            if kernel_name in kernels and kernels[kernel_name].get_num_args() < FIRST_BUFFER + buffers:
                raise BackendUnavailable(f"the kernel of {xclbin} has too few buffers; build the design again")
            uuid = device.handle.register_xclbin(binary)
            self._context = pyxrt.hw_context(device.handle, uuid)
            self._kernel = pyxrt.kernel(self._context, kernel_name)
        self._device = device
        self._instructions: dict[Path, tuple[Any, int]] = {}

    def group(self, operand: int) -> int:
        """The memory group of an operand, by its number."""
        return int(self._kernel.group_id(FIRST_BUFFER + operand))

    def bind(self, artifact: Instructions, *buffers: Buffer) -> Any:
        """A run with all its arguments set, which can be started any number of times: a buffer for each operand."""
        instructions, length = self._load(artifact)
        with _failing("a run could not be set up"):
            run = self._device.pyxrt.run(self._kernel)
            for place, value in enumerate((OPCODE, instructions, length, *(buffer.handle for buffer in buffers))):
                run.set_arg(place, value)
        return run

    def execute(self, runs: Sequence[Any], timeout_ms: int) -> float:
        """Start the runs, wait for all: seconds from the first start to the last end. Raises ProductFailed."""
        if timeout_ms < 1:
            raise ValueError(f"timeout_ms must be >= 1, got {timeout_ms}: XRT waits forever at 0")
        started = time.perf_counter()
        with _failing("the NPU failed"):
            if len(runs) > 1 and self._device.has_run_lists:
                self._execute_list(runs)
            else:
                for run in runs:
                    run.start()
                    self._expect_completed(run.wait(timeout_ms), timeout_ms)
        return time.perf_counter() - started

    def _execute_list(self, runs: Sequence[Any]) -> None:
        run_list = self._device.pyxrt.runlist(self._context)
        for run in runs:
            run_list.add(run)
        run_list.execute()
        run_list.wait()

    def _expect_completed(self, state: Any, timeout_ms: int) -> None:
        states = self._device.pyxrt.ert_cmd_state
        if state == states.ERT_CMD_STATE_COMPLETED:
            return
        if state == states.ERT_CMD_STATE_TIMEOUT:
            raise RunTimedOut(f"the NPU did not answer within {timeout_ms} ms (TIMEOUT)")
        raise ProductFailed(f"a run on the NPU ended in state {str(state).rpartition('_')[2]}")

    def _load(self, artifact: Instructions) -> tuple[Any, int]:
        """The instruction buffer of a launch on the device, and the length that the kernel receives."""
        if artifact.instructions not in self._instructions:
            pyxrt, stream = self._device.pyxrt, artifact.instructions.read_bytes()
            with _failing("the instructions could not be sent to the NPU"):
                buffer = pyxrt.bo(self._device.handle, len(stream), pyxrt.bo.cacheable, self._kernel.group_id(1))
                buffer.write(stream, 0)
                buffer.sync(pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)
            self._instructions[artifact.instructions] = (buffer, artifact.instruction_count)
        return self._instructions[artifact.instructions]

    def close(self) -> None:
        """Release everything in the order that XRT needs; runs bound to this context must be dropped before."""
        self._instructions.clear()
        self._kernel = None
        self._context = None


@contextmanager
def _unavailable(failure: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:
        raise BackendUnavailable(f"{failure}: {_one_line(e)}{_remedy(str(e))}") from e


@contextmanager
def _failing(failure: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:
        raise ProductFailed(f"{failure}: {_one_line(e)}") from e


def _one_line(error: RuntimeError) -> str:
    return " ".join(str(error).split())


def _remedy(text: str) -> str:
    """The remedy for known error texts of XRT, else an empty text."""
    if "CREATE_HWCTX" in text and "err=-22" in text:
        return "; all hardware contexts are in use: close another program that uses the NPU, or use fewer designs"
    if "mmap_range" in text:
        return "; raise the memlock limit to unlimited (/etc/security/limits.conf)"
    if "xclbin" in text or "reading" in text:
        return "; rebuild the design with scripts/build_kernels.py"
    return ""
