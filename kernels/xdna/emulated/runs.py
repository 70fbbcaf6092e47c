"""The emulated bindings `run` and `runlist`: arguments, execution, states, and their pitfalls."""

from __future__ import annotations

import weakref
from typing import Any

from tilewhisper.kernels.xdna.emulated.binding import Bound, check, integer
from tilewhisper.kernels.xdna.emulated.buffers import Bo
from tilewhisper.kernels.xdna.emulated.contexts import HwContext, Kernel, group_of
from tilewhisper.kernels.xdna.emulated.machine import Bytes, EmulatedCrash
from tilewhisper.kernels.xdna.emulated.program import DeviceFault, DeviceHang
from tilewhisper.kernels.xdna.emulated.surface import ert_cmd_state

_TRANSACTION = 3
_INSTRUCTIONS, _LENGTH, _BUFFERS = 1, 2, 3


class Run(Bound):
    public_name = "run"

    def __init__(self, kernel: Kernel) -> None:
        check(kernel, Kernel, "__init__")
        self._context = kernel._context
        self._numbers: dict[int, int] = {}
        self._buffers: dict[int, weakref.ref[Bo]] = {}
        self._copies: dict[int, Bo] = {}
        self._state = ert_cmd_state.ERT_CMD_STATE_NEW
        self._list: weakref.ref[RunList] | None = None

    def set_arg(self, index: int, value: Any) -> None:
        number = integer(index, "set_arg", bits=31)
        known = number < self._context.binary.arguments
        if isinstance(value, Bo):
            if not known:
                raise EmulatedCrash(f"segmentation fault: the kernel has no argument {number} to set a buffer to")
            if number >= _INSTRUCTIONS and value._group != group_of(number):
                value = self._copies[number] = value._copy_in(group_of(number))
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
            raise EmulatedCrash("wait() without a timeout on a run that does not end: this process would wait forever")
        if self._state is ert_cmd_state.ERT_CMD_STATE_NEW:
            return ert_cmd_state.ERT_CMD_STATE_TIMEOUT
        return self._state

    def state(self) -> ert_cmd_state:
        return self._state

    def _execute(self) -> None:
        """Execute at once; only `wait` and `state` report the result."""
        machine, context = self.machine, self._context
        hangs = machine.begin_run()
        if context.broken:
            self._state = ert_cmd_state.ERT_CMD_STATE_ABORT
            return
        try:
            if hangs:
                raise DeviceHang("injected fault")
            self._launch()
            machine.completed += 1
            self._state = ert_cmd_state.ERT_CMD_STATE_COMPLETED
        except DeviceHang:
            context.broken, self._state = True, ert_cmd_state.ERT_CMD_STATE_TIMEOUT
        except DeviceFault:
            context.broken, self._state = True, ert_cmd_state.ERT_CMD_STATE_ERROR

    def _launch(self) -> None:
        """Arguments that are not set are 0: an unknown opcode, no instructions, or a buffer at address 0."""
        if self._numbers.get(0, 0) != _TRANSACTION:
            raise DeviceFault("unknown opcode")
        if not (length := self._numbers.get(_LENGTH, 0)):
            return
        stream = self._device_memory(_INSTRUCTIONS)
        if length > stream.size:
            raise DeviceFault("instructions are read past their buffer")
        program = self._context.binary.program
        operands = (self._device_memory(_BUFFERS + place) for place in range(len(program.design.operands)))
        self.machine.engine.execute(program, stream[:length].tobytes(), *operands)

    def _device_memory(self, argument: int) -> Bytes:
        reference = self._buffers.get(argument)
        buffer = reference() if reference else None
        if buffer is None:
            raise DeviceFault(f"argument {argument} is not a buffer, or a freed one")
        return buffer._device


class RunList(Bound):
    public_name = "runlist"

    def __init__(self, context: HwContext) -> None:
        check(context, HwContext, "__init__")
        self._context = context._context
        self._runs: list[Run] = []
        self._running = False

    def add(self, run: Run) -> None:
        check(run, Run, "add")
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
        """Raises RuntimeError if a run failed; later runs are aborted. The driver ends a run that hangs."""
        was_running, self._running = self._running, False
        if was_running and any(run._state is not ert_cmd_state.ERT_CMD_STATE_COMPLETED for run in self._runs):
            raise RuntimeError("runlist failed execution")

    def _need_idle(self, action: str) -> None:
        if self._running:
            raise RuntimeError(f"runlist must be idle before {action}, current state: running")
