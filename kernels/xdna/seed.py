"""The seed: the report of an NPU attempt that this project started from, as data to compare with.

The report describes an attempt to run the projections of Whisper's encoder (q, k, v and out) on an AMD XDNA1 NPU from
Python. It padded every matrix to multiples of 64 and called a bf16 kernel on one core for each 64x64x64 tile, summing
over K on the host. That worked, but slowly. It measured:

- 54.4 ms a call: XRT set-up 0.5, DMA 1.0, compute 52.0 (a scalar loop), Python 0.9.
- 3,008 calls and 163.7 s for one projection, (3001, 512) x (512, 512). Its 24 projections would take 3,928.8 s, where
  a CPU needs less than 24 s.
- No fewer calls from batching them in Python, which only reorders the calls.

It then proposed kernels for 64x512 and 128x512 tiles, with 376 and 188 calls, and claimed 20.4 s and 10.2 s for them.
Both claims assume that a call takes 54.4 ms however much it computes. `SEED` reproduces that assumption; `SEED_SCALED`
lets the compute time grow with a call's multiply-adds, which gives about 157 s and 160 s.

The figures are kept for two reasons: a plan can be checked against published measurements, and the comparison shows why
this project uses the whole array with few large calls instead. Its 3,001 rows are mel frames: a real projection of the
encoder has 1,500 rows, because the second convolution halves the frames.

The measurements are rounded to a tenth of a millisecond, and 163.7 s / 3,008 calls is 54.42 ms. The profile assigns the
remaining 0.02 ms to compute, the largest part: 52.02 still rounds to 52.0, and all totals of the report follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.cost import CallProfile, Figure
from tilewhisper.kernels.xdna.devices import CORE_TILE, DEVICES, XDNA1

EXPLANATION = (
    "The seed is the report this project started from: an attempt to run Whisper's encoder projections on an XDNA1 NPU "
    "with a host call for every 64x64x64 tile, measured at 54.4 ms a call.",
    "Its figures are kept for comparison: they show why few large calls on the whole array are needed.",
)
"""Printed by `tilewhisper plan` with a geometry or profile of the seed."""

SEED_SHAPE = ProductShape(1, 3001, 512, 512)
SEED_PROJECTIONS = 24
SEED_PROJECTION_SECONDS = 163.7
SEED_CALLS = 3008
_SETUP, _DMA, _PYTHON = 0.5e-3, 1.0e-3, 0.9e-3


def _one_core(name: str, summary: str, call: Tile) -> Geometry:
    return Geometry(name, summary, tuple(DEVICES), rows=1, columns=1, core_tiles=(CORE_TILE,), call=call)


SEED_GEOMETRIES = (
    _one_core(
        "seed-64x64",
        "one core, a host call for every 64x64x64 tile, summed over K by the host",
        Tile(64, 64, 64),
    ),
    # 64x512 is read as 64 rows of A by 512 of K, for 64 columns. The other reading, 512 columns for 64 of K, makes the
    # same 376 calls, but hands partial sums to the host eight times: 200 KiB a call against 144 KiB.
    _one_core(
        "seed-64x512",
        "one core, a host call for 64 rows x 512 of K x 64 columns, in core tiles on chip",
        Tile(64, 512, 64),
    ),
    _one_core(
        "seed-128x512",
        "one core, a host call for 128 rows x 512 of K x 64 columns, in core tiles on chip",
        Tile(128, 512, 64),
    ),
)


@dataclass(frozen=True)
class SeedClaim:
    """The seed's figures for its product under one geometry."""

    calls: int
    seconds: float
    timed: bool
    """True where the seed measured the time, False where it multiplied the number of calls by 54.4 ms."""
    why: str = ""
    """Why the figures of this project differ."""


SEED_CLAIMS: Mapping[str, SeedClaim] = {
    "seed-64x64": SeedClaim(SEED_CALLS, SEED_PROJECTION_SECONDS, timed=True),
    "seed-64x512": SeedClaim(376, 20.4, timed=False, why="376 x 54.4 ms is 20.45 s, which the seed truncates to 20.4"),
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

SEED_PROFILES = (SEED, SEED_SCALED)
