"""What calls and devices cost, as data: figures others published, and what follows from them.

The seed is the report this project started from. It times a 64x64x64 call at 54.4 ms: XRT set-up 0.5, DMA 1.0, compute
52.0, Python 0.9, each to a tenth; and one projection of 3,008 calls at 163.7 s, which is 54.42 ms a call. Twenty-four
times those 163.7 s are its 3,928.8 s. So the call here is 163.7 s / 3,008, and what the four parts leave of it,
0.02 ms, goes to compute, the largest: 52.02 still reads 52.0, the call still 54.4, and all the seed's totals come out.
"""

from dataclasses import dataclass, replace

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.cost import ArrayProfile, CallProfile, Figure, Profile
from tilewhisper.kernels.xdna.geometries import XDNA1, XDNA2, unknown
from tilewhisper.kernels.xdna.tiling import Tile

SEED_SHAPE = ProductShape(1, 3001, 512, 512)
"""The product the seed reports. Its rows are mel frames; an encoder's projection has 1,500."""
SEED_PROJECTIONS = 24
SEED_PROJECTION_SECONDS = 163.7
SEED_CALLS = 3008
_SETUP, _DMA, _PYTHON = 0.5e-3, 1.0e-3, 0.9e-3


@dataclass(frozen=True)
class SeedClaim:
    """What the seed says of one geometry and its product. `why` says where the figures here differ."""

    calls: int
    seconds: float
    timed: bool
    """Whether the seed timed it, or reckoned it from the number of calls."""
    why: str = ""


SEED_CLAIMS = {
    "seed-64x64": SeedClaim(SEED_CALLS, SEED_PROJECTION_SECONDS, timed=True),
    "seed-64x512": SeedClaim(376, 20.4, timed=False, why="376 x 54.4 ms are 20.45 s, which the seed cuts to 20.4"),
    "seed-128x512": SeedClaim(
        188, 10.2, timed=False, why="the seed halves 376, but 3001 rows are 24 blocks of 128, the last one padded"
    ),
}

SEED = CallProfile(
    name="seed",
    summary="every host call takes the seed's 54.4 ms, however much it computes",
    device=XDNA1,
    setup=Figure("XRT set-up a call", _SETUP, "s", "measured", "the seed, on its XDNA1"),
    transfer=Figure("DMA a call", _DMA, "s", "measured", "the seed, on its XDNA1"),
    compute=Figure(
        "compute a call",
        SEED_PROJECTION_SECONDS / SEED_CALLS - _SETUP - _DMA - _PYTHON,
        "s",
        "derived",
        "163.7 s / 3,008 calls less the other parts; the seed says 52.0 ms: a scalar loop on one core",
    ),
    host=Figure("Python a call", _PYTHON, "s", "measured", "the seed, on its host"),
)

SEED_SCALED = replace(
    SEED,
    name="seed-scaled",
    summary="the seed's overheads, and its compute in proportion to a call's multiply-adds",
    compute_tile=Tile(64, 64, 64),
)

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

PROFILES: dict[str, Profile] = {p.name: p for p in (SEED, SEED_SCALED, XDNA1_PROFILE, XDNA2_PROFILE)}


def find_profile(name: str) -> Profile:
    """Raises UnknownTarget with the names there are."""
    try:
        return PROFILES[name]
    except KeyError:
        raise unknown("device", "devices", name, tuple(PROFILES)) from None
