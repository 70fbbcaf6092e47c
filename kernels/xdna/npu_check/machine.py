"""Facts about this machine's NPU software, read from files of the kernel and from `xrt-smi`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.kernels.xdna import probe

_IPC_LOCK = 14
"""Number of the capability that lifts the limit of locked memory."""
_XRT_SMI_SECONDS = 30
_XRT_FOLDERS = ("opt/xilinx/xrt", r"C:\Windows\System32\AMD")
_DRIVER_LABELS = ("XRT/amdxdna", "XRT/amdxdna Version", "XRT/NPU Driver Version")
"""Of older and newer versions, and of Windows."""


@dataclass(frozen=True)
class XrtSmi:
    """What `xrt-smi examine` says; None or empty where it says nothing."""

    xrt: str | None = None
    driver: str | None = None
    firmware: str | None = None
    devices: tuple[str, ...] = ()


def xrt_smi() -> XrtSmi | None:
    """The output of `xrt-smi examine`; None if the program is missing or fails."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *(str(probe.ROOT / f / "bin") for f in _XRT_FOLDERS)])
    places += os.pathsep + _XRT_FOLDERS[-1]
    if not (program := shutil.which("xrt-smi", path=places)):
        return None
    try:
        done = subprocess.run(
            [program, "examine"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_XRT_SMI_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_xrt_smi(done.stdout)


def parse_xrt_smi(text: str) -> XrtSmi:
    """Lines are `  Label : value` below headings; devices are rows such as `|[0000:c6:00.1]  |NPU Strix  |`."""
    fields: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        label, colon, value = (part.strip() for part in line.partition(" :"))
        if colon:
            fields.setdefault(f"{heading}/{label}", value)
        elif label and not line[0].isspace():
            heading = label
    devices = tuple(name.strip() for name in re.findall(r"^\|\[[^|]*\]\s*\|([^|]*)\|", text, re.MULTILINE))
    driver = next((fields[name] for name in _DRIVER_LABELS if name in fields), None)
    return XrtSmi(fields.get("XRT/Version"), driver, fields.get("XRT/NPU Firmware Version"), devices)


def installed_xrt() -> str | None:
    """XRT's version as its folder states it."""
    try:
        data = json.loads((probe.ROOT / _XRT_FOLDERS[0] / "version.json").read_text("utf-8"))
        return str(data["BUILD_VERSION"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def pci_ids() -> tuple[str, ...]:
    """`1022:1502` and so on, of every device on the PCI bus."""
    folders = sorted((probe.ROOT / "sys/bus/pci/devices").glob("*/"))
    found = [(_read(folder / "vendor"), _read(folder / "device")) for folder in folders]
    return tuple(f"{vendor[2:]}:{device[2:]}" for vendor, device in found if vendor and device)


def driver_version() -> str | None:
    """Of a driver that was not built with the kernel, which has a version of its own."""
    return _read(probe.ROOT / "sys/module/amdxdna/version")


def firmware_version() -> str | None:
    files = sorted((probe.ROOT / probe.DRIVER).glob("*/fw_version"))
    return _read(files[0]) if files else None


def is_iommu_off() -> bool:
    return "amd_iommu=off" in (_read(probe.ROOT / "proc/cmdline") or "").split()


def memlock_bytes() -> int | None:
    """How much memory this process may lock; None if there is no limit, or none that the system tells."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY or _may_lock_any() else limit


def _may_lock_any() -> bool:
    status = _read(probe.ROOT / "proc/self/status") or ""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(found and int(found[1], 16) >> _IPC_LOCK & 1)


def node_access(node: Path) -> str:
    """Group and mode, such as `group render, mode 660`."""
    state = node.stat()
    return f"group {_group(state.st_gid)}, mode {state.st_mode & 0o777:o}"


def _group(number: int) -> str:
    """Its name, or its number where it has none."""
    if sys.platform == "win32":
        return str(number)
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return None
