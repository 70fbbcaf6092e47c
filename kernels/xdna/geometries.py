"""The geometries as data: the whole array of each device and the seed's, found by name."""

from difflib import get_close_matches

from tilewhisper.kernels.base import UnknownTarget
from tilewhisper.kernels.xdna.array import Device, Geometry, Tile
from tilewhisper.kernels.xdna.devices import CORE_TILE, DEVICES, XDNA1, XDNA2
from tilewhisper.kernels.xdna.seed import SEED_GEOMETRIES

WHOLE_ARRAY = "whole-array"
"""The geometry that uses all cores of a device."""

GEOMETRIES = (
    *SEED_GEOMETRIES,
    Geometry(
        name=WHOLE_ARRAY,
        summary="16 cores in 4 columns, a product in one call",
        devices=(XDNA1.name,),
        rows=4,
        columns=4,
        core_tiles=(CORE_TILE,),
    ),
    Geometry(
        name=WHOLE_ARRAY,
        summary="32 cores in 8 columns, a product in one call",
        devices=(XDNA2.name,),
        rows=4,
        columns=8,
        # 48 is for N = 384, which 8 columns of 32 would pad to 512.
        core_tiles=(CORE_TILE, Tile(64, 64, 48)),
    ),
)

ONE_COLUMN = Geometry(
    name="one-column",
    summary="4 cores in one column, a product in one call",
    devices=tuple(DEVICES),
    rows=4,
    columns=1,
    core_tiles=(CORE_TILE,),
)
"""For `npu-check` only, so it is not found by name: its descriptors do not reach a product of Whisper's size."""


def geometry_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(geometry.name for geometry in GEOMETRIES))


def find_geometry(name: str, device: Device) -> Geometry:
    """The geometry with this name for this device. Raises UnknownTarget, which lists the known names."""
    for geometry in GEOMETRIES:
        if geometry.name == name and device.name in geometry.devices:
            return geometry
    raise unknown("geometry", "geometries", name, geometry_names())


def unknown(kind: str, plural: str, name: str, names: tuple[str, ...]) -> UnknownTarget:
    """The error for an unknown name, with the closest known name and the whole list."""
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UnknownTarget(f"unknown {kind} {name!r}{hint}; the {plural} are {', '.join(names)}")
