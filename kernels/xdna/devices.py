"""AMD's two NPU generations as data, and how to recognise a device by the name that XRT reports."""

from collections.abc import Mapping
from difflib import get_close_matches

from tilewhisper.kernels.base import UnknownTarget
from tilewhisper.kernels.xdna.array import Device, MicroKernel, Tile

_BF16_BLOCK = Tile(16, 8, 16)

XDNA1 = Device(
    name="xdna1",
    summary="Phoenix and Hawk Point, AIE2",
    rows=4,
    columns=4,
    micro_kernels={
        "bf16": MicroKernel(Tile(4, 8, 4), _BF16_BLOCK),
        "int8": MicroKernel(Tile(4, 8, 8), Tile(4, 8, 8)),
    },
    max_contexts=6,
)

XDNA2 = Device(
    name="xdna2",
    summary="Strix, Krackan and Gorgon Point, AIE2P",
    rows=4,
    columns=8,
    # (8, 8, 8) exists too, but only by emulating bf16 in block floating point.
    micro_kernels={"bf16": MicroKernel(Tile(4, 8, 8), _BF16_BLOCK)},
    max_contexts=16,
)

DEVICES: Mapping[str, Device] = {device.name: device for device in (XDNA1, XDNA2)}

# 64x64x32 and not 64x64x64: C stays float32 over the k-steps, and two float32 buffers of 64x64 do not fit in 64 KiB
# beside A and B.
CORE_TILE = Tile(64, 64, 32)
"""The core tile that fits every device in bf16 with float32 sums."""

XRT_NAMES: Mapping[str, tuple[str, ...]] = {
    XDNA1.name: ("NPU Phoenix", "NPU Hawk Point", "RyzenAI-npu1"),
    XDNA2.name: (
        *("NPU Strix", "NPU Strix Halo", "NPU Krackan", "NPU Krackan 1", "NPU Krackan 2"),
        *("NPU Gorgon Point 1", "NPU Gorgon Point 2", "NPU Gorgon Point 3"),
        *("RyzenAI-npu4", "RyzenAI-npu5", "RyzenAI-npu6"),
    ),
}
"""Device -> its names in XRT (amd/xdna-driver). Older drivers name Gorgon Point as Strix or Krackan."""

PCI_IDS: Mapping[str, str] = {XDNA1.name: "1022:1502", XDNA2.name: "1022:17f0"}
"""Device -> its vendor and device number on the PCI bus (amd/xdna-driver)."""

OTHER_PCI_IDS = ("1022:17f1", "1022:17f2", "1022:17f3", "1022:1b0a", "1022:1b0b", "1022:1b0c")
_OTHER_ARRAYS = ("RyzenAI-npu3", "RyzenAI-npu7", "RyzenAI-npu8", "RyzenAI-npu9", "RyzenAI-npu10")
"""Of a later architecture, which cannot run designs for AIE2 and AIE2P."""


def device_called(xrt_name: str) -> Device:
    """The device with this XRT name, such as "NPU Phoenix" or "RyzenAI-npu1". Raises UnknownTarget."""
    wanted = xrt_name.casefold().strip()
    known = {name.casefold(): (name, device) for device, names in XRT_NAMES.items() for name in names}
    if wanted in known:
        return DEVICES[known[wanted][1]]
    if wanted in map(str.casefold, _OTHER_ARRAYS):
        raise UnknownTarget(
            f"unsupported NPU {xrt_name!r}: its architecture is neither AIE2 nor AIE2P, and no design fits; "
            "use a policy without the NPU, or --npu emulated"
        )
    (nearest,) = get_close_matches(wanted, known, n=1, cutoff=0)
    name, device = known[nearest]
    raise UnknownTarget(
        f"unknown NPU {xrt_name!r}; the nearest known name is {name!r} ({device}: {DEVICES[device].summary}); "
        f"if yours has the same array, continue with --npu {device}"
    )
