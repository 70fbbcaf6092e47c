"""Open the NPU that the settings name, real or emulated, with its built designs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable, Settings
from tilewhisper.kernels.user_cache import user_cache
from tilewhisper.kernels.xdna import built_designs, xrt
from tilewhisper.kernels.xdna.array import Device
from tilewhisper.kernels.xdna.artifacts import Artifact
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, device_called
from tilewhisper.kernels.xdna.sequence import Plan

KERNELS_FOLDER = user_cache("kernels")


@dataclass(frozen=True, eq=False)
class OpenedNpu:
    """An open device and the designs for it."""

    opened: xrt.Device
    device: Device
    find: Callable[[Plan], Artifact]
    """The built design of a plan; raises BackendUnavailable."""
    emulated: bool


def open_npu(settings: Settings) -> OpenedNpu:
    """Raises BackendUnavailable, and UnknownTarget for a device whose name is unknown."""
    if settings.npu == "emulated":
        return _open_emulated(settings)
    if settings.npu_fault:
        raise BackendUnavailable("faults can be injected into the emulated NPU only: add --npu emulated")
    opened = xrt.open_device(xrt.import_module())
    device = DEVICES.get(settings.npu) or device_called(opened.name)
    return OpenedNpu(opened, device, partial(built_designs.find, kernels_folder(settings)), emulated=False)


def kernels_folder(settings: Settings) -> Path:
    return Path(settings.npu_kernels).expanduser() if settings.npu_kernels else KERNELS_FOLDER


def _open_emulated(settings: Settings) -> OpenedNpu:
    """An emulated XDNA1, whose designs are built on first use."""
    from tilewhisper.kernels.xdna.emulated import pyxrt
    from tilewhisper.kernels.xdna.emulated.on_demand import DesignsOnDemand, parse_fault

    opened = xrt.open_device(pyxrt.make(XDNA1, faults=parse_fault(settings.npu_fault)))
    return OpenedNpu(opened, XDNA1, DesignsOnDemand(), emulated=True)
