"""Forks: a forked process can use the models of its parent, and the parent goes on.

A fork copies memory and the forking thread, but no other thread. What the others held in the middle of a step would
stay as it is for ever, so a fork waits for the step under way, and none starts before it is done. OpenMP's worker
threads are gone as well, and GNU's runtime would wait for them: the forking thread ends its workers before, and both
processes start new ones when they need them.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import torch

_PAUSE_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""


class Forkable(Protocol):
    """An object that a fork must not copy in the middle of its work."""

    def before_fork(self) -> bool:
        """Wait for the work under way, and let none start; False if this very thread is at work."""

    def after_fork_in_parent(self) -> None:
        """Go on, where `before_fork` returned True."""

    def after_fork_in_child(self) -> None:
        """Forget all work of other threads, which the new process does not have."""


_known: tuple["weakref.ref[Forkable]", ...] = ()
_change = threading.Lock()
_held = threading.local()


def register(one: Forkable) -> None:
    """Call an object's methods at every fork, as long as it exists."""
    global _known
    with _change:
        _known = (*(known for known in _known if known() is not None), weakref.ref(one))


def _before() -> None:
    _held.by_this_thread = []
    for reference in _known:
        if (one := reference()) is not None and one.before_fork():
            _held.by_this_thread.append(one)
    _end_openmp_threads()


def _after_in_parent() -> None:
    for one in _held.__dict__.pop("by_this_thread", ()):
        one.after_fork_in_parent()


def _after_in_child() -> None:
    global _change
    _change = threading.Lock()
    _held.__dict__.clear()
    for reference in _known:
        if (one := reference()) is not None:
            one.after_fork_in_child()


def _openmp_pause() -> Callable[[int], int] | None:
    """`omp_pause_resource_all` of torch's OpenMP, where it is GNU's. LLVM's and Intel's handle forks themselves."""
    torch_library = ctypes.CDLL(torch._C.__file__)
    if not hasattr(torch_library, "omp_pause_resource_all") or hasattr(torch_library, "__kmpc_fork_call"):
        return None
    return torch_library.omp_pause_resource_all


def _end_openmp_threads() -> None:
    """End the OpenMP workers of this thread; each thread that starts a parallel region has its own."""
    if _pause is not None:
        _pause(_PAUSE_HARD)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    _pause = _openmp_pause()
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
