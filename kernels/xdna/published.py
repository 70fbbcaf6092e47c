"""Published times of work that this project's designs do in the same way, as data. `not_comparable` has the others.

Each row is cut the way its source cut it: mlir-air's core tiles are larger and its rows of cores run along M, so the
array re-reads less than with this project's geometry, and a product that mlir-air or whisper-xdna writes as bf16 moves
half of the result's bytes. The commit behind @ is the one that was read.

`use` says what a row is evidence of. The figures of a profile are fitted to the rows "fitted"; rows "held out" were not
used in any fit; a row that is itself a figure of its profile is "given", and its error means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Device, Geometry, Tile
from tilewhisper.kernels.xdna.cost import Load, load_of
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.tile_plan import TilePlan, cut

Use = Literal["fitted", "held out", "given"]

WHISPER_XDNA = "drakosha/whisper-xdna @d43cb82"
MLIR_AIR = "Xilinx/mlir-air kernel_registry @e972f294"
NPU_EMBEDDINGS = "vegah/Npu-Embeddings @b4a7deb"
XDNA_ENGINE = "atassis/xdna-engine @b1c2dc8"
HAWK_POINT, STRIX, HX_370 = "Ryzen 7 PRO 8845HS", "RyzenAI-npu4", "Ryzen AI 9 HX 370"
GORGON_POINT = "Ryzen AI 9 465"

Sizes = tuple[int, int, int]
"""M, K, N of a product."""


@dataclass(frozen=True)
class Published:
    """One measurement of others, and the work that it timed."""

    what: str
    profiles: tuple[str, ...]
    """The profiles that predict it."""
    generation: str
    chip: str
    shape: Sizes | None
    dtype: str
    tile: Tile | None
    columns: int | None
    value: float | tuple[float, ...]
    """The source's figure, in `unit`."""
    unit: str
    seconds: float
    """The same as a time."""
    source: str
    use: Use
    loads: tuple[Load, ...]


@dataclass(frozen=True)
class _Bench:
    """How a source cuts products and on what it timed them."""

    profile: str
    device: Device
    chip: str
    source: str
    rows_of_cores: int = 4
    """Along M; the others are along N."""

    def product(
        self,
        sizes: Sizes,
        tile: Tile,
        columns: int,
        value: float,
        unit: str = "GFLOP/s",
        dtype_out: str = "f32",
        use: Use = "fitted",
    ) -> Published:
        """One timed product. `value` is a time or a rate, which counts a multiply-add as two operations."""
        rows = self.device.rows
        plan = _plan(sizes, tile, self.rows_of_cores, rows * columns // self.rows_of_cores, dtype_out, self.device)
        m, k, n = sizes
        seconds = value * _SECONDS[unit] if unit in _SECONDS else 2 * m * k * n / (value * _RATES[unit])
        return Published(
            what="product",
            profiles=(self.profile,),
            generation=self.device.name,
            chip=self.chip,
            shape=sizes,
            dtype=f"bf16 -> {dtype_out}",
            tile=tile,
            columns=columns,
            value=value,
            unit=unit,
            seconds=seconds,
            source=self.source,
            use=use,
            loads=(replace(load_of(plan), columns=columns),),
        )


_SECONDS, _RATES = {"ms": 1e-3, "us": 1e-6}, {"GFLOP/s": 1e9, "TFLOP/s": 1e12}


def _plan(sizes: Sizes, tile: Tile, rows: int, columns: int, dtype_out: str, device: Device) -> TilePlan:
    """`rows` of cores along M and `columns` along N. No limits are checked: the sources' own designs have others."""
    geometry = Geometry("published", "", (device.name,), rows, columns, (tile,), dtype_out=dtype_out)
    return cut(ProductShape(1, *sizes), geometry, device)


def _core(profile: str, cycles: float) -> Published:
    """One core's tile from its trace, as a time at the profile's clock."""
    tile = Tile(64, 64, 32)
    return Published(
        what="tile of one core",
        profiles=(profile,),
        generation="xdna2",
        chip=HX_370,
        shape=(tile.m, tile.k, tile.n),
        dtype="bf16 -> f32",
        tile=tile,
        columns=None,
        value=cycles,
        unit="cycles",
        seconds=cycles / 1.8e9,
        source=NPU_EMBEDDINGS,
        use="given",
        loads=(Load(0, 0, tile.multiply_adds, columns=1, cores=1),),
    )


def _changes(
    generation: str,
    chip: str,
    columns: int,
    value: float | tuple[float, float],
    unit: str,
    source: str,
    use: Use = "fitted",
    number: int = 1,
) -> Published:
    """Changes of design. A pair is a design alone, and alternating with a copy of itself in another context."""
    seconds = (value[1] - value[0] if isinstance(value, tuple) else value) * _SECONDS[unit]
    return Published(
        what="change of design" if number == 1 else f"{number} changes of design",
        profiles=("xdna1",) if generation == "xdna1" else ("xdna2-native", "xdna2-bfp16"),
        generation=generation,
        chip=chip,
        shape=None,
        dtype="",
        tile=None,
        columns=columns,
        value=value,
        unit=unit,
        seconds=seconds,
        source=source,
        use=use,
        loads=(Load(0, 0, 0, columns, 4 * columns, switches=number),),
    )


def _rows(what: str, elements: int, columns: int, microseconds: float, use: Use, cores: int = 0) -> Published:
    """A function of bf16 rows to bf16 rows, on one core of each column or on `cores`."""
    return Published(
        what=what,
        profiles=("xdna2-native", "xdna2-bfp16"),
        generation="xdna2",
        chip=STRIX,
        shape=None,
        dtype="bf16 -> bf16",
        tile=None,
        columns=columns,
        value=microseconds,
        unit="us",
        seconds=microseconds * 1e-6,
        source=MLIR_AIR,
        use=use,
        loads=(Load(1, 2 * 2 * elements, 0, columns, cores or columns, row_elements=elements),),
    )


def _attention() -> Published:
    """Attention of large-v3's encoder in three designs: scores as bf16, softmax of all heads in place, values."""
    layers, heads, positions = 32, 20, 1536
    runs = layers * heads
    scores = _plan((positions, 64, positions), Tile(32, 64, 64), 4, 4, "bf16", XDNA1)
    values = _plan((positions, positions, 64), Tile(64, 64, 16), 4, 4, "f32", XDNA1)

    def of_heads(plan: TilePlan) -> Load:
        return Load(runs, runs * plan.bytes_moved, runs * plan.padded.multiply_adds, 4, 16, layers, in_list=True)

    weights = runs * positions * positions
    softmax = Load(layers, 2 * 2 * weights, 0, columns=4, cores=16, switches=layers, row_elements=weights)
    return Published(
        what="attention of large-v3",
        profiles=("xdna1",),
        generation="xdna1",
        chip=HAWK_POINT,
        shape=None,
        dtype="bf16",
        tile=None,
        columns=4,
        value=(1151, 1016),
        unit="ms",
        seconds=1.016,
        source=WHISPER_XDNA,
        use="held out",
        loads=(of_heads(scores), softmax, of_heads(values)),
    )


_HAWK_POINT = _Bench("xdna1", XDNA1, HAWK_POINT, WHISPER_XDNA).product
_STRIX = _Bench("xdna2-bfp16", XDNA2, STRIX, MLIR_AIR, rows_of_cores=8).product
_HX_370 = _Bench("xdna2-bfp16", XDNA2, HX_370, NPU_EMBEDDINGS).product
_64_32, _64_48 = Tile(64, 64, 32), Tile(64, 64, 48)
_64_128, _32_128, _64_64 = Tile(64, 32, 128), Tile(32, 32, 128), Tile(64, 32, 64)

PUBLISHED: tuple[Published, ...] = (
    _HAWK_POINT((1536, 1536, 384), _64_32, 4, 1761),
    _HAWK_POINT((1536, 5120, 1280), _64_32, 4, 1514),
    _HAWK_POINT((1536, 1280, 1280), _64_32, 4, 1409),
    _HAWK_POINT((1536, 64, 1536), Tile(32, 64, 64), 4, 386),
    _HAWK_POINT((512, 512, 512), _64_32, 4, 0.267, "ms"),
    _attention(),
    _changes("xdna1", HAWK_POINT, 4, 2.81, "ms", WHISPER_XDNA, "given", number=2),
    _STRIX((2048, 2048, 2048), _64_128, 8, 8508),
    _STRIX((2048, 2048, 512), _64_128, 8, 7342),
    _STRIX((2048, 2048, 8192), _64_128, 8, 8278),
    _STRIX((2048, 8192, 2048), _64_128, 8, 9797),
    _STRIX((512, 512, 512), _32_128, 8, 1791),
    _STRIX((1024, 1024, 1024), _64_128, 8, 6256),
    _STRIX((4096, 4096, 4096), _64_128, 8, 9329),
    _STRIX((512, 512, 512), _32_128, 8, 1703, dtype_out="bf16"),
    _STRIX((1024, 768, 768), Tile(32, 64, 96), 8, 3798, dtype_out="bf16"),
    _STRIX((1024, 3072, 768), Tile(32, 64, 96), 8, 5790, dtype_out="bf16"),
    _HX_370((512, 512, 512), _64_32, 1, 785.9, "us"),
    _HX_370((512, 512, 512), _64_32, 4, 304.6, "us"),
    _HX_370((512, 512, 512), _64_32, 8, 243.0, "us"),
    _HX_370((1024, 512, 512), _64_32, 8, 1.74, "TFLOP/s"),
    _HX_370((2048, 512, 512), _64_32, 8, 2.25, "TFLOP/s"),
    _HX_370((4096, 512, 512), _64_32, 8, 2.61, "TFLOP/s"),
    *(
        _STRIX(sizes, tile, 8, value, dtype_out=dtype_out, use="held out")
        for sizes, tile, value, dtype_out in (
            ((2048, 2048, 2048), _64_64, 6367, "f32"),
            ((2048, 8192, 2048), _64_64, 6816, "f32"),
            ((4096, 4096, 4096), _64_64, 6623, "f32"),
            ((2048, 2048, 2048), _32_128, 6025, "bf16"),
            ((2048, 2048, 512), _32_128, 5626, "bf16"),
            ((2048, 2048, 8192), _32_128, 5784, "bf16"),
            ((2048, 8192, 2048), _32_128, 7234, "bf16"),
            ((1024, 1024, 1024), _32_128, 4637, "bf16"),
            ((4096, 4096, 4096), _32_128, 7002, "bf16"),
            ((2048, 1536, 256), Tile(32, 32, 64), 3770, "bf16"),
            ((2048, 896, 896), Tile(32, 32, 32), 2516, "bf16"),
            ((256, 960, 960), Tile(32, 32, 80), 1896, "bf16"),
            ((256, 960, 2560), _32_128, 2838, "bf16"),
            ((256, 2560, 960), Tile(32, 32, 80), 3425, "bf16"),
            ((1024, 768, 3072), _32_128, 4195, "bf16"),
        )
    ),
    _HX_370((512, 384, 1152), _64_48, 8, 280.1, "us", use="held out"),
    _HX_370((512, 384, 384), _64_48, 8, 205.5, "us", use="held out"),
    _HX_370((512, 384, 1536), _64_48, 8, 374.4, "us", use="held out"),
    _HX_370((512, 1536, 384), _64_48, 8, 313.3, "us", use="held out"),
    _core("xdna2-native", 5250.9),
    _core("xdna2-bfp16", 954.7),
    _changes("xdna2", HX_370, 2, (451, 1061), "us", NPU_EMBEDDINGS),
    _changes("xdna2", HX_370, 4, (288, 1478), "us", NPU_EMBEDDINGS),
    _changes("xdna2", HX_370, 8, (221, 2569), "us", NPU_EMBEDDINGS),
    _changes("xdna2", GORGON_POINT, 8, 2.67, "ms", XDNA_ENGINE),
    *(
        _rows("layer norm of 1024 x 768", 1024 * 768, columns, value, "fitted")
        for columns, value in ((1, 1974), (2, 1007), (4, 555), (8, 324))
    ),
    *(
        _rows("GELU of 1024 x 3072", 1024 * 3072, columns, value, "held out")
        for columns, value in ((1, 7181), (2, 3794), (4, 1834), (8, 947))
    ),
    *(
        _rows(f"GELU of {elements:,}", elements, 8, value, "held out", cores=16)
        for elements, value in ((2**20, 235), (2**21, 379), (3 * 2**20, 522), (2**22, 672), (2**23, 1244))
    ),
)
