"""AMD's two NPU generations as data, and how to recognise a device by the name that XRT reports."""

from collections.abc import Mapping

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
    summary="Strix and Krackan, AIE2P",
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

_XRT_NAMES = {
    XDNA1.name: ("npu1", "phoenix", "hawk"),
    XDNA2.name: ("npu4", "npu5", "npu6", "strix", "krackan"),
}


def device_called(xrt_name: str) -> Device:
    """The device with this XRT name, such as "NPU Phoenix" or "RyzenAI-npu1". Raises UnknownTarget."""
    for name, words in _XRT_NAMES.items():
        if any(word in xrt_name.lower() for word in words):
            return DEVICES[name]
    raise UnknownTarget(
        f"unsupported NPU {xrt_name!r}; this version has designs for Phoenix, Hawk Point, Strix and Krackan"
    )
