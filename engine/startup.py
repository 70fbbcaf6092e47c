"""Speed up the start of a command that uses torch, and measure its parts.

Imports nothing heavy, so that it can be imported first. The time that the interpreter itself takes to start is not
measured: the system keeps no time for it. A process's start time survives exec, so it would count the lifetime of a
shell that replaced itself by Python.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

_search_module = inspect.getmodule
_imports_began: float | None = None
"""`perf_counter` when the running command began; None without a command, or once its first model is loaded."""


@dataclass(frozen=True)
class Startup:
    """Wall seconds from the start of a command to a loaded model, in this order."""

    import_seconds: float | None
    """From the command's start to the model's: mostly `import torch`. None without a command, and for later models."""
    weights_seconds: float
    """Reading and checking the checkpoint, or mapping its cached copy."""
    mapped: bool
    """The weights were mapped from the copy that an earlier start cached."""
    prepare_seconds: float
    """Loading the backends and preparing the weights for them."""


@contextmanager
def fast_imports() -> Iterator[None]:
    """Speed up `import torch` inside, and start the clock of `import_seconds`.

    The garbage collector is off until `import_seconds` is called or the context ends: imports create a million objects
    and no garbage, and searching them again and again takes 0.15 s. Torch does not search all installed packages for
    backends of other devices (0.1 s), unless the user sets torch's variable TORCH_DEVICE_BACKEND_AUTOLOAD. The module
    of a frame, of which torch asks when it registers an operator, is not searched for among the files of all modules
    (0.03 to 0.05 s).
    """
    global _imports_began
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    _imports_began = time.perf_counter()
    collects = gc.isenabled()
    gc.disable()
    inspect.getmodule = _module_by_name
    try:
        yield
    finally:
        inspect.getmodule = _search_module
        _imports_began = None
        if collects:
            gc.enable()


def import_seconds() -> float | None:
    """End the imports of a command: seconds since it began; None without a command, and at later calls.

    Turns the garbage collector on again, and excludes the objects that exist now from its searches.
    """
    global _imports_began
    if _imports_began is None:
        return None
    began, _imports_began = _imports_began, None
    inspect.getmodule = _search_module
    gc.freeze()
    gc.enable()
    return time.perf_counter() - began


def _module_by_name(object: object, _filename: str | None = None) -> ModuleType | None:
    """`inspect.getmodule` for a frame without its search: the frame's globals have the name of its module."""
    if inspect.isframe(object):
        return sys.modules.get(object.f_globals.get("__name__", ""))
    return _search_module(object, _filename)
