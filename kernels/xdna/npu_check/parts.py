"""The parts that an NPU needs, each found or missing, with the remedy. Minimum versions are from public sources."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable, KernelError
from tilewhisper.kernels.xdna import artifacts, probe, xrt
from tilewhisper.kernels.xdna.devices import DEVICES, OTHER_PCI_IDS, PCI_IDS
from tilewhisper.kernels.xdna.npu_check import machine
from tilewhisper.kernels.xdna.npu_check.all_steps import plans_of_check
from tilewhisper.kernels.xdna.npu_check.running import BuiltProduct
from tilewhisper.kernels.xdna.npu_check.steps import STEPS, how_to_build
from tilewhisper.kernels.xdna.opening import OpenedNpu
from tilewhisper.kernels.xdna.probe import Problem

KERNEL_WITH_DRIVER = (6, 14)
XRT_WITH_RUN_LISTS = (2, 20)
FIRMWARE_ASKED = (1, 1)
"""By other engines for XDNA2 (lemonade, FastFlowLM)."""

_GET_XRT_SMI = "put xrt-smi on PATH (Debian: libxrt-utils-npu; Windows: C:\\Windows\\System32\\AMD)"
_LIMITS = "/etc/security/limits.d/99-amdxdna.conf"


@dataclass(frozen=True)
class Part:
    """What was found of a part, and its problem."""

    name: str
    found: str
    problem: Problem | None = None
    needed: bool = True
    """Whether nothing can run with this problem."""


def machine_parts() -> Iterator[Part]:
    """Hardware, driver and software, found without opening the device."""
    smi = machine.xrt_smi() or machine.XrtSmi()
    state = probe.probe()
    if sys.platform == "win32":
        yield Part("system", f"Windows {platform.version()}")
        unknown = Problem("its version is unknown without xrt-smi", _GET_XRT_SMI)
        yield Part("driver", smi.driver or "", None if smi.driver else unknown, needed=False)
    else:
        yield _npu()
        yield _kernel(driver_loaded=state.driver is None)
        yield Part("driver", _driver(smi) if state.driver is None else "", state.driver)
    yield _firmware(smi)
    if sys.platform != "win32":
        yield Part(
            "device node", ", ".join(f"{n} ({machine.node_access(n)})" for n in probe.device_nodes()), state.device
        )
        yield _memlock()
    yield _pyxrt(state.pyxrt)
    yield _xrt(smi)


def _npu() -> Part:
    ids = set(machine.pci_ids())
    for device, number in PCI_IDS.items():
        if number in ids:
            return Part("NPU", f"PCI {number}: {DEVICES[device].summary}")
    if others := sorted(ids & set(OTHER_PCI_IDS)):
        no_design = "its array is neither AIE2 nor AIE2P, and no design fits"
        return Part("NPU", f"PCI {others[0]}", Problem(no_design, "use a policy without the NPU, or --npu emulated"))
    if (probe.ROOT / probe.DRIVER).is_dir() and probe.device_nodes():
        return Part("NPU", "not on the PCI bus that this system shows")
    absent = f"no AMD NPU on the PCI bus ({' or '.join(PCI_IDS.values())})"
    return Part("NPU", "", Problem(absent, "use a Ryzen AI computer with its NPU enabled in the BIOS"))


def _kernel(*, driver_loaded: bool) -> Part:
    release, wanted = platform.release(), ".".join(map(str, KERNEL_WITH_DRIVER))
    problem = None
    if machine.is_iommu_off():
        problem = Problem("the kernel was started with amd_iommu=off", "remove amd_iommu=off from its command line")
    elif not driver_loaded and (number := numbers(release)) and number < KERNEL_WITH_DRIVER:
        problem = Problem(f"Linux before {wanted} has no driver for the NPU", f"install Linux {wanted} or newer")
    return Part("kernel", f"{platform.system()} {release}", problem)


def _driver(smi: machine.XrtSmi) -> str:
    return f"amdxdna {machine.driver_version() or smi.driver or 'of this kernel'}"


def _firmware(smi: machine.XrtSmi) -> Part:
    version = machine.firmware_version() or smi.firmware
    if not version:
        return Part(
            "firmware", "", Problem("neither the driver nor xrt-smi states its version", _GET_XRT_SMI), needed=False
        )
    number = numbers(version)
    if number and number < FIRMWARE_ASKED:
        old = Problem("others need 1.1.0.0 or newer", "install linux-firmware of 2026-02-21 or newer")
        return Part("firmware", version, old, needed=False)
    return Part("firmware", version)


def _memlock() -> Part:
    limit = machine.memlock_bytes()
    if limit is None:
        return Part("locked memory", "unlimited")
    add = f"add `* - memlock unlimited` to {_LIMITS} and log in again"
    low = Problem("buffers are locked in memory, and those of larger models do not fit", add)
    return Part("locked memory", f"{limit // 1024:,} KiB", low, needed=False)


def _pyxrt(problem: Problem | None) -> Part:
    spec = None if problem else find_spec("pyxrt")
    place = f"{spec.origin}, " if spec and spec.origin else ""
    this = f"Python {platform.python_version()}"
    return Part("pyxrt", this if problem else f"{place}{this}", problem)


def _xrt(smi: machine.XrtSmi) -> Part:
    version = smi.xrt or machine.installed_xrt()
    if not version:
        return Part("XRT", "", Problem("its version is unknown without xrt-smi", _GET_XRT_SMI), needed=False)
    number, wanted = numbers(version), ".".join(map(str, XRT_WITH_RUN_LISTS))
    if number and number < XRT_WITH_RUN_LISTS:
        old = Problem(
            f"run lists came with {wanted}: launches are started one by one", f"install XRT {wanted} or newer"
        )
        return Part("XRT", version, old, needed=False)
    return Part("XRT", f"{version}; xrt-smi lists {', '.join(smi.devices)}" if smi.devices else version)


def device_parts(npu: OpenedNpu, folder: Path) -> Iterator[Part]:
    """The opened device, its designs and its free contexts."""
    yield Part("device", f"{npu.opened.name}: profile {npu.device.name} ({npu.device.summary})")
    if npu.emulated:
        yield Part("designs", "built for the emulated device on first use")
    else:
        yield _designs(npu, folder)
    yield _contexts(npu)


def failed_device(error: KernelError) -> Part:
    """The device that could not be opened, or has an unknown name."""
    reason, _, remedy = str(error).partition("; ")
    return Part("device", "", Problem(reason, remedy or "run `dmesg | grep amdxdna` for the driver's errors"))


def _designs(npu: OpenedNpu, folder: Path) -> Part:
    """Every design in the folder, and whether this version can load it on this device."""
    usable, problems = [], []
    for place in sorted(folder.glob("*/")):
        if design := artifacts.design_in(place):
            usable += [design] if design.device == npu.device.name else []
        elif (place / artifacts.MANIFEST).is_file():
            problems.append(place.name)
    found = f"{len(usable)} for {npu.device.name} in {folder}"
    if problems:
        listed = ", ".join(problems)
        other = Problem(f"{listed}: built by another version of tilewhisper", how_to_build(npu.device))
        return Part("designs", found, other, needed=False)
    needed = {cut.design for _, cut in plans_of_check(npu.device)}
    if missing := len(needed - set(usable)):
        absent = Problem(f"{missing} of the {len(needed)} designs of this check are missing", how_to_build(npu.device))
        return Part("designs", found, absent, needed=False)
    return Part("designs", found)


def _contexts(npu: OpenedNpu) -> Part:
    most = npu.device.max_contexts
    try:
        built = BuiltProduct.of(npu.find(STEPS[0].plan(npu.device)))
    except BackendUnavailable:
        return Part("contexts", f"at most {most}; counting the free ones needs the design of the first step")
    free, why_no_more = free_contexts(npu.opened, built, most)
    if free:
        return Part("contexts", f"{free} of {most} free")
    reason, _, remedy = why_no_more.partition("; ")
    return Part("contexts", f"0 of {most} free", Problem(reason, remedy or how_to_build(npu.device)))


def free_contexts(opened: xrt.Device, built: BuiltProduct, most: int) -> tuple[int, str]:
    """Open contexts until none is left, then close them: their number, and why there were no more."""
    held: list[xrt.Context] = []
    try:
        while len(held) < most:
            held.append(xrt.Context(opened, built.xclbin, built.kernel))
    except BackendUnavailable as full:
        return len(held), str(full)
    finally:
        for context in held:
            context.close()
    return len(held), ""


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `6.14.0-29-generic` -> (6, 14, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
