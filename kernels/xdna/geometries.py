"""The devices and the geometries there are, as data, and how one is found by name."""

from difflib import get_close_matches

from tilewhisper.kernels.base import UnknownTarget
from tilewhisper.kernels.xdna.tiling import Device, Geometry, MicroKernel, Tile

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

_BOTH = (XDNA1.name, XDNA2.name)

_XRT_NAMES = {
    XDNA1.name: ("npu1", "phoenix", "hawk"),
    XDNA2.name: ("npu4", "npu5", "npu6", "strix", "krackan"),
}

# 64x64x32 and not 64x64x64: C stays float32 over the k-steps, and that much of it does not fit twice in 64 KiB.
_CORE = Tile(64, 64, 32)

GEOMETRIES = (
    Geometry(
        name="seed-64x64",
        summary="one core, a host call for every 64x64x64 tile, summed over K by the host",
        devices=_BOTH,
        rows=1,
        columns=1,
        core_tiles=(_CORE,),
        call=Tile(64, 64, 64),
    ),
    # 64x512 is read as 64 rows of A by 512 of K, for 64 columns. The other reading, 512 columns for 64 of K, makes the
    # same 376 calls, but hands partial sums to the host eight times over: 200 KiB a call against 144 KiB.
    Geometry(
        name="seed-64x512",
        summary="one core, a host call for 64 rows x 512 of K x 64 columns, in core tiles on chip",
        devices=_BOTH,
        rows=1,
        columns=1,
        core_tiles=(_CORE,),
        call=Tile(64, 512, 64),
    ),
    Geometry(
        name="seed-128x512",
        summary="one core, a host call for 128 rows x 512 of K x 64 columns, in core tiles on chip",
        devices=_BOTH,
        rows=1,
        columns=1,
        core_tiles=(_CORE,),
        call=Tile(128, 512, 64),
    ),
    Geometry(
        name="whole-array",
        summary="16 cores in 4 columns, a product in one call",
        devices=(XDNA1.name,),
        rows=4,
        columns=4,
        core_tiles=(_CORE,),
    ),
    Geometry(
        name="whole-array",
        summary="32 cores in 8 columns, a product in one call",
        devices=(XDNA2.name,),
        rows=4,
        columns=8,
        # 48 is for N = 384, which 8 columns of 32 would pad to 512.
        core_tiles=(_CORE, Tile(64, 64, 48)),
    ),
)


def geometry_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(geometry.name for geometry in GEOMETRIES))


def find_geometry(name: str, device: Device) -> Geometry:
    """The geometry of that name for that device. Raises UnknownTarget with the names there are."""
    for geometry in GEOMETRIES:
        if geometry.name == name and device.name in geometry.devices:
            return geometry
    raise unknown("geometry", "geometries", name, geometry_names())


def device_called(xrt_name: str) -> Device:
    """The device that XRT calls so ("NPU Phoenix", "RyzenAI-npu1"). Raises UnknownTarget."""
    for device, words in _XRT_NAMES.items():
        if any(word in xrt_name.lower() for word in words):
            return {XDNA1.name: XDNA1, XDNA2.name: XDNA2}[device]
    raise UnknownTarget(
        f"the NPU {xrt_name!r} is none this version has designs for: Phoenix, Hawk Point, Strix, Krackan"
    )


def unknown(what: str, plural: str, name: str, names: tuple[str, ...]) -> UnknownTarget:
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UnknownTarget(f"unknown {what} {name!r}{hint}; the {plural} are {', '.join(names)}")
