"""Which of an NPU's software and hardware this machine has. Imports no `pyxrt` and opens no device.

`pyxrt` is not to be confused with `xrt` on PyPI or Debian's `python3-xrt` before trixie: they are an X-ray tracer.
"""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_DRIVER = Path("/sys/bus/pci/drivers/amdxdna")
_NODES = Path("/dev/accel")


@dataclass(frozen=True)
class NpuProbe:
    """The state of each part: None if it is available, else the reason and the remedy."""

    pyxrt: str | None
    driver: str | None
    device: str | None

    @property
    def why_unusable(self) -> str | None:
        return self.driver or self.device or self.pyxrt


def probe() -> NpuProbe:
    return NpuProbe(_why_no_pyxrt(), _why_no_driver(), _why_no_device())


def _why_no_pyxrt() -> str | None:
    if find_spec("pyxrt"):
        return None
    if sys.platform == "win32":
        return "the module pyxrt is not importable; install the XRT SDK 2.21.75 (it needs CPython 3.13)"
    folder = "/opt/xilinx/xrt/python"
    return f"the module pyxrt is not importable; install XRT and put its Python folder ({folder}) on PYTHONPATH"


def _why_no_driver() -> str | None:
    if sys.platform == "win32" or _DRIVER.is_dir():
        return None
    return "the amdxdna kernel driver is not loaded; it needs Linux 6.14 or newer and a Ryzen AI processor"


def _why_no_device() -> str | None:
    if sys.platform == "win32":
        return None
    nodes = sorted(_NODES.glob("accel*"))
    if not nodes:
        return f"no NPU: there is no device node in {_NODES}"
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return f"no permission for {nodes[0]}; add yourself to the group render and log in again"
    return None
