"""Costs of devices as data: published figures of others and numbers derived from them. The seed's are in `seed`."""

from tilewhisper.kernels.xdna.cost import ArrayProfile, Figure, Profile
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import unknown
from tilewhisper.kernels.xdna.seed import SEED_PROFILES

_HOST = Figure("host filling and reading", 10e9, "bytes/s", "derived", "rule of thumb for one host core")

XDNA1_PROFILE = ArrayProfile(
    name="xdna1",
    summary="XDNA1, 16 cores at 1.0 GHz",
    device=XDNA1,
    launch=Figure("launch", 0.09e-3, "s", "derived", "mlir-aie, RyzenAI-SW and IRON time empty kernels at 45-110 us"),
    switch=Figure("change of design", 1.4e-3, "s", "measured", "whisper-xdna"),
    bandwidth=Figure("DDR through the shim", 20e9, "bytes/s", "derived", "xdna-engine"),
    rate=Figure(
        "bf16 rate",
        2.1e12,
        "operations/s",
        "derived",
        "half of the 4.19 T peak (xdna-driver); whisper-xdna reaches 1.41-1.76 T with transfers",
    ),
    host_bandwidth=_HOST,
)

XDNA2_PROFILE = ArrayProfile(
    name="xdna2",
    summary="XDNA2, 32 cores",
    device=XDNA2,
    launch=Figure("launch", 0.06e-3, "s", "derived", "mlir-aie, RyzenAI-SW and IRON time empty kernels at 45-110 us"),
    switch=Figure("change of design", 2.7e-3, "s", "measured", "xdna-engine"),
    bandwidth=Figure("DDR through the shim", 50e9, "bytes/s", "derived", "xdna-engine measures 47-57 GB/s"),
    rate=Figure("bf16 rate", 8.5e12, "operations/s", "measured", "mlir-air, 2048x2048x2048"),
    host_bandwidth=_HOST,
)

PROFILES: dict[str, Profile] = {p.name: p for p in (*SEED_PROFILES, XDNA1_PROFILE, XDNA2_PROFILE)}


def find_profile(name: str) -> Profile:
    """The profile with this name. Raises UnknownTarget, which lists the known names."""
    try:
        return PROFILES[name]
    except KeyError:
        raise unknown("device", "devices", name, tuple(PROFILES)) from None
