"""Activations that stay in a device's memory between the blocks of one encode.

A backend with memory of its own returns `DeviceTensor`s from `to_device` and from its blocks. They have a shape and a
dtype, so that torch's operators carry them like any tensor, but no data on the host: whatever else touches them raises
an error instead of copying them in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilewhisper.kernels.shapes import Usage

if TYPE_CHECKING:
    from tilewhisper.kernels.base import Backend

_note: ContextVar[Callable[[Usage], None] | None] = ContextVar("note", default=None)


class DeviceTensor(Tensor):
    """A float32 activation in the memory of the backend `owner`, which alone knows what `buffer` is."""

    owner: Backend
    buffer: Any
    on_host: Tensor | None
    """A host copy, once it was read back; activations never change."""

    @staticmethod
    def __new__(cls, shape: Sequence[int], owner: Backend, buffer: Any) -> DeviceTensor:
        x: DeviceTensor = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)
        x.owner, x.buffer, x.on_host = owner, buffer, None
        return x

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"DeviceTensor({tuple(self.shape)}, on {self.owner.name!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Raise RuntimeError. Operators with a rule for this class (`register_torch_dispatch`) do not get here."""
        raise RuntimeError(f"{func} needs its data on the host, but got a DeviceTensor; call to_host first")


def to_host(x: Tensor) -> Tensor:
    """Read an activation back, wherever it is: a host tensor of the same shape. Raises ProductFailed."""
    if not isinstance(x, DeviceTensor):
        return x
    if x.on_host is None:
        with x.owner.lock:
            before = x.owner.usage
            x.on_host = x.owner.to_host(x)
            if (note := _note.get()) is not None:
                note(x.owner.usage - before)
    return x.on_host


@contextmanager
def noting_read_backs(note: Callable[[Usage], None]) -> Iterator[None]:
    """Call `note` with the device's use for every activation that this thread (or asyncio task) reads back inside."""
    token = _note.set(note)
    try:
        yield
    finally:
        _note.reset(token)
