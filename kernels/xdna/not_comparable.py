"""Published figures that the cost model does not predict, each with the reason. `published` has those it predicts.

A claim is the statement of an abstract or of a data sheet: no size and no way of measuring come with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.kernels.xdna.published import MLIR_AIR, NPU_EMBEDDINGS, WHISPER_XDNA, XDNA_ENGINE, Sizes

DRIVER = "amd/xdna-driver @856409ca"


@dataclass(frozen=True)
class NotComparable:
    """A published figure that is not predicted, and why."""

    what: str
    generation: str
    value: float | tuple[float, ...]
    unit: str
    source: str
    why: str
    shape: Sizes | None = None
    claim: bool = False


_SERVICE = "the time of a service, with the stem, the audio and the host's own steps"
_COMPILER = "another micro-kernel, the compiler's own, with about half the multiply-adds a cycle"
_SECOND = "a second launch with another configuration of the array converts the result; no design here does that"
_INT8 = "8-bit integers"
_ABSTRACT = "no sizes and no design"

NOT_COMPARABLE: tuple[NotComparable, ...] = (
    NotComparable("int8 products, best", "xdna1", (1930, 2020), "GFLOP/s", WHISPER_XDNA, _INT8),
    NotComparable(
        "product through IRON's Python",
        "xdna1",
        1.385,
        "ms",
        WHISPER_XDNA,
        why="1.1 ms of it are a wrapper that this project does not use",
        shape=(512, 512, 512),
    ),
    NotComparable("encoder of tiny", "xdna1", 484, "ms", WHISPER_XDNA, _SERVICE),
    NotComparable("encoder of small", "xdna1", 1507, "ms", WHISPER_XDNA, _SERVICE),
    NotComparable("encoder of large-v3-turbo", "xdna1", 3346, "ms", WHISPER_XDNA, _SERVICE),
    NotComparable("encoder of large-v3", "xdna1", 3990, "ms", WHISPER_XDNA, _SERVICE),
    NotComparable(
        "encoder of large-v3, raw XRT",
        "xdna1",
        3344,
        "ms",
        WHISPER_XDNA,
        why="norms, residuals, biases and conversions run on its host in numpy, and their times are not published",
    ),
    NotComparable("encoder on 16 threads", "cpu", 6940, "ms", WHISPER_XDNA, "a CPU's time"),
    NotComparable("making a context", "xdna1", 2.5, "ms", WHISPER_XDNA, "a cost of loading, not of running"),
    NotComparable("run list", "xdna1", 24, "%", WHISPER_XDNA, "itself the figure of a launch in a run list"),
    NotComparable("overlap of host and device", "xdna1", 1.4, "%", WHISPER_XDNA, "nothing here overlaps them"),
    NotComparable(
        "product beside a busy CPU",
        "xdna1",
        (1082, 682),
        "GFLOP/s",
        WHISPER_XDNA,
        "no size; the model has no other load",
    ),
    *(
        NotComparable("product, compiled", "xdna2", value, "GFLOP/s", MLIR_AIR, _COMPILER, shape)
        for value, shape in ((5516, (2048, 2048, 2048)), (1536, (512, 512, 512)), (5791, (4096, 4096, 4096)))
    ),
    *(
        NotComparable("product, then a conversion", "xdna2", value, "GFLOP/s", MLIR_AIR, _SECOND, shape)
        for value, shape in ((482, (512, 512, 512)), (2502, (1024, 1024, 1024)), (4821, (2048, 1536, 1536)))
    ),
    NotComparable(
        "two processes at once", "xdna2", (1.44, 1.48), "x", NPU_EMBEDDINGS, "a ratio of throughputs with host overlap"
    ),
    NotComparable(
        "call of a product: write, run, read",
        "xdna2",
        (0.13, 0.41, 0.13),
        "ms",
        XDNA_ENGINE,
        why="neither the tile nor the multiplication is stated; its write and read are the figure of the host",
        shape=(512, 768, 768),
    ),
    NotComparable(
        "DDR read",
        "xdna2",
        (47, 57),
        "GB/s",
        XDNA_ENGINE,
        why="reads alone, without a product; above the fitted 42.1 GB/s of reads and writes, as it should be",
    ),
    NotComparable("Conformer encoder, 144 calls", "xdna2", (427, 563), "ms", XDNA_ENGINE, "another model, whole"),
    NotComparable("Whisper-small and turbo, 17 clips", "xdna2", (2.35, 2.65), "s", XDNA_ENGINE, "whole transcriptions"),
    *(
        NotComparable("product, best", generation, value, "TOP/s", "arXiv 2512.13282", _ABSTRACT, claim=True)
        for generation, value in (("xdna1", 6.76), ("xdna1", 3.14), ("xdna2", 38.05), ("xdna2", 14.71))
    ),
    *(
        NotComparable("BFP16 product", "xdna2", value, "TFLOP/s", "arXiv 2511.16041", _ABSTRACT, claim=True)
        for value in (4.8, 24.6)
    ),
    NotComparable("highest clock", "xdna1", 1600, "MHz", DRIVER, "a clock; the profile takes a lower level"),
    NotComparable("highest clock", "xdna2", 1800, "MHz", DRIVER, "itself the figure of the clock"),
)
