"""Which of an NPU's software and hardware this machine has. Imports no `pyxrt` and opens no device.

`pyxrt` is not to be confused with `xrt` on PyPI or Debian's `python3-xrt` before trixie: they are an X-ray tracer.
"""

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path("/")
"""Of the file system with `sys`, `proc` and `dev`."""
DRIVER = "sys/bus/pci/drivers/amdxdna"
_NODES = "dev/accel"
_XRT_PYTHON = (Path("/opt/xilinx/xrt/python"), Path(r"C:\Xilinx\XRT\python"))


@dataclass(frozen=True)
class Problem:
    """Why a part is unusable, and what to do."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


@dataclass(frozen=True)
class NpuProbe:
    """The problem of each part, None if it is available."""

    pyxrt: Problem | None
    driver: Problem | None
    device: Problem | None

    @property
    def why_unusable(self) -> str | None:
        problem = self.driver or self.device or self.pyxrt
        return str(problem) if problem else None


def probe() -> NpuProbe:
    return NpuProbe(_why_no_pyxrt(), _why_no_driver(), _why_no_device())


def device_nodes() -> list[Path]:
    return sorted((ROOT / _NODES).glob("accel*"))


def _why_no_pyxrt() -> Problem | None:
    if find_spec("pyxrt"):
        return None
    if other := _pyxrt_of_another_python():
        file, version = other
        this = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Problem(
            f"{file} is for Python {version} and this is Python {this}", f"use tilewhisper with Python {version}"
        )
    reason = "the module pyxrt is not importable"
    if sys.platform == "win32":
        return Problem(reason, "install the XRT SDK 2.21.75 (it needs CPython 3.13)")
    return Problem(reason, f"install XRT and put its Python folder ({_XRT_PYTHON[0]}) on PYTHONPATH")


def _pyxrt_of_another_python() -> tuple[Path, str] | None:
    """The module's file, whose name states its Python (`cpython-313-…`, `cp313-…`), and that version."""
    for folder in (*map(Path, sys.path), *_XRT_PYTHON):
        for file in sorted(folder.glob("pyxrt.*")):
            if found := re.search(r"\.(?:cpython-|cp)(\d)(\d+)-.*\.(?:so|pyd)$", file.name):
                return file, f"{found[1]}.{found[2]}"
    return None


def _why_no_driver() -> Problem | None:
    if sys.platform == "win32" or (ROOT / DRIVER).is_dir():
        return None
    return Problem(
        "the amdxdna kernel driver is not loaded",
        "run Linux 6.14 or newer on a Ryzen AI processor, or install amdxdna-dkms",
    )


def _why_no_device() -> Problem | None:
    if sys.platform == "win32":
        return None
    nodes = device_nodes()
    if not nodes:
        return Problem(
            f"no NPU: there is no device node in {ROOT / _NODES}", "load the driver amdxdna (see docs/npu.md)"
        )
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return Problem(f"no permission for {nodes[0]}", "add yourself to the group render and log in again")
    return None
