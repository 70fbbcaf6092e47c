"""The command's start: made quick, and told in a split. Imports nothing heavy, so that it can be the first to run."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_FOR_COMPILERS = "torch._meta_registrations"
_began: tuple[float | None, float] | None = None
"""Of the command of this process, until its first model is loaded: the process's age, and `perf_counter`, then."""


@dataclass(frozen=True)
class Startup:
    """Wall seconds from the start of the process to a model that is ready, in the order they pass."""

    interpreter_seconds: float | None
    """Up to the command; None where no command runs, or for a later model, or where the system does not tell."""
    import_seconds: float | None
    """From there to the model: torch above all. None where no command runs, or for a later model."""
    weights_seconds: float
    """Reading and checking the checkpoint, or mapping the copy of it."""
    mapped: bool
    """The weights came out of the copy that an earlier start has left."""
    prepare_seconds: float
    """Loading the backends and preparing the weights for them."""


@contextmanager
def swift() -> Iterator[None]:
    """A command that will import torch.

    Importing makes a million objects and no garbage; looking for some again and again takes 0.15 s, so that waits for
    the first model, or the end of the command. Torch need not look through all installed packages for backends of
    other devices (0.1 s): none is used here. Who sets the variable, which is torch's own, is obeyed.
    """
    global _began
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    _began = _process_age(), time.perf_counter()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _began = None
        if collects:
            gc.enable()


@contextmanager
def no_compilers() -> Iterator[None]:
    """Where torch is imported without the last module that it imports of itself: 0.25 s of 0.95.

    That one registers which shapes kernels give, which nothing asks for that computes. Who compiles, or makes tensors
    without numbers as transformers does, must import it before that, after this; so this is for commands that do not.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules[_FOR_COMPILERS] = ModuleType(_FOR_COMPILERS)
    try:
        yield
    finally:
        del sys.modules[_FOR_COMPILERS]
        if torch := sys.modules.get("torch"):
            vars(torch).pop(_FOR_COMPILERS.rpartition(".")[2], None)


def imported() -> tuple[float | None, float | None]:
    """Seconds up to the command, and from there to now: asked once, when all is imported. From here on, garbage is
    collected again, without a look at what the imports made."""
    global _began
    if _began is None:
        return None, None
    age, began = _began
    _began = None
    gc.freeze()
    gc.enable()
    return age, time.perf_counter() - began


def _process_age() -> float | None:
    """Seconds, to the system's tick of 10 ms; None where there is no /proc."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None
