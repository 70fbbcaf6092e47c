"""Which of an NPU's software and hardware this machine has. Imports no `pyxrt` and opens no device.

`pyxrt` is not to be confused with `xrt` on PyPI or Debian's `python3-xrt` before trixie: they are an X-ray tracer.
"""

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_DRIVER = Path("/sys/bus/pci/drivers/amdxdna")
_NODES = Path("/dev/accel")
_XRT_PYTHON = (Path("/opt/xilinx/xrt/python"), Path(r"C:\Xilinx\XRT\python"))


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
    if other := _pyxrt_of_another_python():
        file, version = other
        this = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"{file} is for Python {version} and this is Python {this}; use tilewhisper with Python {version}"
    if sys.platform == "win32":
        return "the module pyxrt is not importable; install the XRT SDK 2.21.75 (it needs CPython 3.13)"
    folder = "/opt/xilinx/xrt/python"
    return f"the module pyxrt is not importable; install XRT and put its Python folder ({folder}) on PYTHONPATH"


def _pyxrt_of_another_python() -> tuple[Path, str] | None:
    """The module's file, whose name states its Python (`cpython-313-…`, `cp313-…`), and that version."""
    for folder in (*map(Path, sys.path), *_XRT_PYTHON):
        for file in sorted(folder.glob("pyxrt.*")):
            if found := re.search(r"\.(?:cpython-|cp)(\d)(\d+)-.*\.(?:so|pyd)$", file.name):
                return file, f"{found[1]}.{found[2]}"
    return None


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
