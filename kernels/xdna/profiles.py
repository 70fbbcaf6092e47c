"""Costs of devices as data: published figures of others, and figures fitted to them. The seed's are in `seed`.

Two figures of XDNA1 are fitted to 5 timed products. Of XDNA2, three are fitted to 16 products, one to 4 changes of
design, one to 4 layer norms. The rows are in `published`; `calibration` shows the error of each, and of times that took
no part in a fit. The two profiles of XDNA2 differ only in the multiply-adds of a core: no source times a whole array
with native bf16, so that profile rests on one core's cycles, and on transfers that do not depend on the multiplication.
"""

from dataclasses import replace

from tilewhisper.kernels.base import UnknownTarget
from tilewhisper.kernels.xdna.cost import ArrayProfile, Figure, Profile
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import unknown
from tilewhisper.kernels.xdna.seed import SEED_PROFILES

_HOST = Figure("host filling and reading", 6e9, "bytes/s", "derived", "xdna-engine: 0.79 MB in 0.13 ms, both ways")
_LISTED = Figure("launch in a run list", 0.76, "of a launch", "measured", "whisper-xdna, on XDNA1")

XDNA1_PROFILE = ArrayProfile(
    name="xdna1",
    summary="XDNA1, 16 cores",
    device=XDNA1,
    launch=Figure("launch", 0.053e-3, "s", "fitted", "5 products of whisper-xdna; empty kernels take 0.045-0.11 ms"),
    listed_launch=_LISTED,
    switch=Figure("change of design, a column", 0.351e-3, "s", "measured", "whisper-xdna: 2.81 ms for two, 4 columns"),
    bandwidth=Figure("DDR to the array", 19.7e9, "bytes/s", "fitted", "5 products of whisper-xdna"),
    column_bandwidth=Figure(
        "DDR to a column", 19.7e9 / 4, "bytes/s", "derived", "a fourth; nobody timed fewer columns"
    ),
    multiply_adds=Figure(
        "bf16 multiply-adds of a core in a cycle", 64, "multiply-adds", "derived", "mlir-aie issue 2735: half of 128"
    ),
    row_elements=Figure(
        "row elements of a core in a cycle", 0.25, "elements", "derived", "as on XDNA2; nobody timed a norm alone"
    ),
    clock=Figure(
        "clock", 1.024e9, "Hz", "derived", "xdna-driver has levels of 0.8, 1.024, 1.309 and 1.6 GHz; a run's is unknown"
    ),
    host_bandwidth=_HOST,
)

XDNA2_BFP16_PROFILE = ArrayProfile(
    name="xdna2-bfp16",
    summary="XDNA2, 32 cores, bf16 multiplied as blocks of eight with one exponent (error 1e-2)",
    device=XDNA2,
    launch=Figure("launch", 0.127e-3, "s", "fitted", "16 products of mlir-air and Npu-Embeddings"),
    listed_launch=_LISTED,
    switch=Figure("change of design, a column", 0.307e-3, "s", "fitted", "4 times of Npu-Embeddings and xdna-engine"),
    bandwidth=Figure("DDR to the array", 42.1e9, "bytes/s", "fitted", "16 products; xdna-engine reads at 47-57 GB/s"),
    column_bandwidth=Figure(
        "DDR to a column", 16e9, "bytes/s", "fitted", "the product of Npu-Embeddings on one column"
    ),
    multiply_adds=Figure(
        "bf16 multiply-adds of a core in a cycle", 137.3, "multiply-adds", "measured", "Npu-Embeddings, one core"
    ),
    row_elements=Figure("row elements of a core in a cycle", 0.25, "elements", "fitted", "4 layer norms of mlir-air"),
    clock=Figure("clock", 1.8e9, "Hz", "derived", "xdna-driver: the highest level"),
    host_bandwidth=_HOST,
)

XDNA2_NATIVE_PROFILE = replace(
    XDNA2_BFP16_PROFILE,
    name="xdna2-native",
    summary="XDNA2, 32 cores, exact products of bf16",
    multiply_adds=replace(XDNA2_BFP16_PROFILE.multiply_adds, value=25.0),
)

ARRAY_PROFILES = (XDNA1_PROFILE, XDNA2_NATIVE_PROFILE, XDNA2_BFP16_PROFILE)
PROFILES: dict[str, Profile] = {p.name: p for p in (*SEED_PROFILES, *ARRAY_PROFILES)}


def find_profile(name: str) -> Profile:
    """The profile with this name. Raises UnknownTarget, which lists the known names."""
    if name in PROFILES:
        return PROFILES[name]
    if name in DEVICES:
        own = "; ".join(f"{p.name}: {p.summary}" for p in ARRAY_PROFILES if p.device.name == name)
        raise UnknownTarget(f"device {name} has several cost profiles, choose one of them ({own})")
    raise unknown("device", "devices", name, tuple(PROFILES))
