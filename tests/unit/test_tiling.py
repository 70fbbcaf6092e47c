"""Plans against an enumeration of every tile, descriptors against numpy, and every limit by exceeding it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper.engine.routing.sites import Site, encoder_sites
from tilewhisper.kernels.base import KernelError, ProductShape, UnknownTarget, UnsupportedShape
from tilewhisper.kernels.xdna.array import MicroKernel, Tile
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import GEOMETRIES, find_geometry, geometry_names
from tilewhisper.kernels.xdna.host_calls import grouped_calls, host_calls
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan, why_not
from tilewhisper.kernels.xdna.transfers import transfers
from tilewhisper.models.checkpoint.catalog import SIZES

SEED_CASE = ProductShape(1, 3001, 512, 512)
SIZE_OF = {"bf16": 2, "f32": 4}

every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)


def shape_of(site: Site) -> ProductShape:
    return ProductShape(site.batch, site.m, site.k, site.n)


def sites_of(name: str) -> tuple[Site, ...]:
    size = SIZES[name]
    return encoder_sites(size.encoder_layers, size.d_model, size.heads, 4 * size.d_model)


def cut(shape: ProductShape, name: str, device=XDNA1) -> TilePlan:
    return plan(shape, find_geometry(name, device), device)


def enumerated(p: TilePlan) -> dict[str, int]:
    """Count calls, steps and bytes tile by tile, from the tile sizes of the plan only."""
    g, core, call = p.geometry, p.core, p.launch
    seen = {"calls": 0, "steps": 0, "a": 0, "b": 0, "c": 0, "area": 0}

    def starts(size: int, step: int) -> list[int]:
        return list(range(0, size, step))

    for _row in starts(p.shape.m, call.m):
        for _column in starts(p.shape.n, call.n):
            for _depth in starts(p.shape.k, call.k):
                seen["calls"] += p.shape.batch
                for _top in starts(call.m, core.m * g.rows):
                    for _left in starts(call.n, core.n * g.columns):
                        for _inner in starts(call.k, core.k):
                            seen["a"] += g.rows * core.m * core.k
                            seen["b"] += g.columns * core.k * core.n
                            seen["steps"] += g.cores
                        seen["c"] += g.cores * core.m * core.n
    for part, dtype in (("a", g.dtype_in), ("b", g.dtype_in), ("c", g.dtype_out)):
        seen[part] *= p.shape.batch * SIZE_OF[dtype]
    seen["steps"] *= p.shape.batch
    seen["area"] = len(starts(p.shape.m, call.m)) * call.m * len(starts(p.shape.n, call.n)) * call.n
    return seen


def assert_counts(p: TilePlan) -> None:
    seen = enumerated(p)
    assert (p.calls, p.core_steps) == (seen["calls"], seen["steps"])
    assert (p.bytes_a, p.bytes_b, p.bytes_c) == (seen["a"], seen["b"], seen["c"])
    assert p.padded.m * p.padded.n == seen["area"]
    assert p.grid.rows * p.grid.depth * p.grid.columns * p.shape.batch == p.calls


@every_device
@pytest.mark.parametrize(
    ("model", "name"), [*(("tiny", name) for name in geometry_names()), ("large-v3", "whole-array")]
)
def test_counts_equal_an_enumeration_of_every_tile(model, name, device):
    for site in sites_of(model)[:8]:
        assert_counts(cut(shape_of(site), name, device))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.sampled_from(geometry_names()),
    st.sampled_from(list(DEVICES.values())),
    st.builds(ProductShape, st.integers(1, 3), st.integers(1, 1500), st.integers(1, 1500), st.integers(1, 1500)),
)
def test_counts_of_any_size_equal_an_enumeration_of_every_tile(name, device, shape):
    assert_counts(cut(shape, name, device))


@every_device
@pytest.mark.parametrize("model", SIZES)
def test_the_whole_array_makes_one_call_per_product_of_every_size(model, device):
    for site in sites_of(model):
        p = cut(shape_of(site), "whole-array", device)
        assert p.calls == site.batch
        assert p.padded.m == 1536
        if site.kind == "linear":
            assert (p.padded.k, p.padded.n) == (site.k, site.n), "linear layers are padded in their rows only"


def test_eight_columns_use_tiles_48_wide_for_n_384_and_32_otherwise():
    widths = {n: cut(ProductShape(1, 1500, 512, n), "whole-array", XDNA2).core.n for n in (384, 512, 768, 1024, 1280)}
    assert widths == {384: 48, 512: 32, 768: 32, 1024: 32, 1280: 32}


@pytest.mark.parametrize(("name", "calls"), [("seed-64x64", 3008), ("seed-64x512", 376), ("seed-128x512", 192)])
def test_calls_of_the_seeds_product(name, calls):
    assert cut(SEED_CASE, name).calls == calls


def test_a_real_projection_has_half_the_rows():
    assert cut(ProductShape(1, 1500, 512, 512), "seed-64x64").calls == 24 * 8 * 8


@pytest.mark.parametrize("size", [1, 7, 8])
def test_batching_in_python_saves_no_calls(size):
    p = cut(SEED_CASE, "seed-64x64")
    groups = list(grouped_calls(p, size))
    made = [call for group in groups for call in group]
    assert len(groups) == -(-3008 // size)
    assert len(made) == len(set(made)) == p.calls == 3008
    assert made == list(host_calls(p))


def test_calls_of_an_output_tile_are_consecutive():
    p = cut(ProductShape(2, 100, 130, 70), "seed-64x64")
    calls = list(host_calls(p))
    places = list(dict.fromkeys((call.batch, call.row, call.column) for call in calls))
    assert len(places) == 2 * 2 * 2
    assert [call.depth for call in calls] == [0, 1, 2] * len(places)
    assert [(call.batch, call.row, call.column) for call in calls[::3]] == places


def test_memory_holds_double_buffered_tiles():
    assert cut(SEED_CASE, "whole-array").l1_bytes == 40 * 1024  # 64/64/32 with float32 out
    assert cut(ProductShape(1, 1500, 384, 384), "whole-array", XDNA2).l1_bytes == 52 * 1024
    # A of one row of cores, B of one column, C of four cores in the column.
    assert cut(SEED_CASE, "whole-array").l2_bytes == 2 * (64 * 64 * 2 + 64 * 32 * 2 + 4 * 64 * 32 * 4)


def test_host_bytes_are_the_buffers_of_the_calls():
    p = cut(ProductShape(1, 1500, 512, 512), "whole-array")
    assert (p.host_bytes_a, p.host_bytes_b, p.host_bytes_c) == (1536 * 512 * 2, 512 * 512 * 2, 1536 * 512 * 4)
    p = cut(SEED_CASE, "seed-64x64")
    assert p.host_bytes_a + p.host_bytes_b + p.host_bytes_c == 3008 * (64 * 64 * 2 + 64 * 64 * 2 + 64 * 64 * 4)


@pytest.mark.parametrize(("rows", "waste"), [(1536, 0.0), (1500, 1 - 1500 / 1536), (1, 1 - 1 / 256)])
def test_waste_is_the_padded_share_of_the_work(rows, waste):
    assert cut(ProductShape(1, rows, 512, 512), "whole-array").waste == pytest.approx(waste)


def addresses(sizes, strides, offset=0) -> np.ndarray:
    grid = np.indices(sizes).reshape(len(sizes), -1)
    return offset + np.tensordot(strides, grid, 1)


@pytest.mark.parametrize(
    ("shape", "name", "device"),
    [
        (ProductShape(1, 1024, 192, 384), "whole-array", XDNA1),
        (ProductShape(1, 1024, 192, 384), "whole-array", XDNA2),
        (ProductShape(1, 256, 64, 128), "whole-array", XDNA1),
        (ProductShape(1, 128, 512, 64), "seed-128x512", XDNA1),
    ],
    ids=str,
)
def test_shim_transfers_walk_the_operands_tile_by_tile(shape, name, device):
    p = cut(shape, name, device)
    g, (m, k, n) = p.geometry, (p.core.m, p.core.k, p.core.n)
    M, K, N = p.launch.m, p.launch.k, p.launch.n
    a, b, c = transfers(p)[:3]
    A, B = np.arange(M * K).reshape(M, K), np.arange(K * N).reshape(K, N)
    lefts = range(0, N, n * g.columns)
    for row in range(M // m):
        tiles = [A[row * m : (row + 1) * m, j : j + k] for _ in lefts for j in range(0, K, k)]
        assert np.array_equal(addresses(a.sizes, a.strides, row * m * K), np.concatenate([t.ravel() for t in tiles]))
    for column in range(g.columns):
        tiles = [B[j : j + k, left + column * n :][:, :n] for left in lefts for j in range(0, K, k)]
        assert np.array_equal(addresses(b.sizes, b.strides, column * n), np.concatenate([t.ravel() for t in tiles]))
    written = [
        addresses(c.sizes, c.strides, top * g.rows * m * N + column * n)
        for top in range(0, M // (g.rows * m), p.row_blocks_per_transfer)
        for column in range(g.columns)
    ]
    assert np.array_equal(np.sort(np.concatenate(written)), np.arange(M * N))


@every_device
def test_memory_tiles_reorder_for_the_matrix_instruction(device):
    p = cut(ProductShape(1, 256, 64, 256), "whole-array", device)
    (m, k, n), micro = (p.core.m, p.core.k, p.core.n), device.micro_kernels["bf16"].tile
    r, s, t = micro.m, micro.k, micro.n
    a, b, c = transfers(p)[3:]

    def blocks(rows: int, columns: int, height: int, width: int) -> np.ndarray:
        tile = np.arange(rows * columns).reshape(rows // height, height, columns // width, width)
        return tile.transpose(0, 2, 1, 3)

    assert np.array_equal(addresses(a.sizes, a.strides), blocks(m, k, r, s).ravel())
    assert np.array_equal(addresses(b.sizes, b.strides), blocks(k, n, s, t).ravel())
    # A core writes C in blocks; in this order it is row-major, the inverse of blocks().
    in_blocks = blocks(m, n, r, t).ravel()
    assert np.array_equal(in_blocks[addresses(c.sizes, c.strides)], np.arange(m * n))


def test_large_fc1_moves_c_one_row_block_at_a_time():
    """256 rows of 5,120 float32 are 1,310,720 words, more than the limit of a descriptor's stride, 2**20."""
    wide = cut(ProductShape(1, 1500, 1280, 5120), "whole-array")
    assert (wide.row_blocks_per_transfer, wide.shim_descriptors, wide.queued_transfers) == (1, 6, 2)
    fits = cut(ProductShape(1, 1500, 1024, 4096), "whole-array")
    assert (fits.row_blocks_per_transfer, fits.shim_descriptors, fits.queued_transfers) == (2, 10, 4)


WHOLE = find_geometry("whole-array", XDNA1)
PRODUCT = ProductShape(1, 1500, 512, 512)


@pytest.mark.parametrize(
    ("shape", "geometry", "device", "reason"),
    [
        (PRODUCT, replace(WHOLE, columns=8), XDNA1, "uses 8 columns of cores and the device has 4"),
        (PRODUCT, replace(WHOLE, rows=6), XDNA1, "uses 6 rows of cores and the device has 4"),
        (PRODUCT, WHOLE, XDNA2, "made for xdna1"),
        (PRODUCT, replace(WHOLE, dtype_in="int8", devices=("xdna2",)), XDNA2, "no micro-kernel for int8; it has bf16"),
        (PRODUCT, replace(WHOLE, core_tiles=(Tile(62, 64, 32),)), XDNA1, r"micro-kernel 4x8x4: m 62 % 4 = 2"),
        (PRODUCT, replace(WHOLE, core_tiles=(Tile(64, 60, 32),)), XDNA1, r"micro-kernel 4x8x4: k 60 % 8 = 4"),
        (PRODUCT, replace(WHOLE, core_tiles=(Tile(64, 64, 30),)), XDNA1, r"micro-kernel 4x8x4: n 30 % 4 = 2"),
        (PRODUCT, replace(WHOLE, core_tiles=(Tile(64, 64, 24),)), XDNA1, r"block 16x8x16: n 24 % 16 = 8"),
        (PRODUCT, replace(WHOLE, call=Tile(64, 64, 128)), XDNA1, r"array's tile 256x64x128: m 64 % 256 = 64"),
        (
            PRODUCT,
            replace(WHOLE, core_tiles=(Tile(64, 64, 64),)),
            XDNA1,
            r"64x64x64 needs 65,536 bytes of L1 \(A 16,384 \+ B 16,384 .* and a core has 62,208 .*smaller core tiles",
        ),
        (PRODUCT, WHOLE, replace(XDNA1, l2_bytes=65536), "needs 90,112 bytes of a memory tile, which has 65,536"),
        (PRODUCT, WHOLE, replace(XDNA1, shim_descriptors=8), "needs 10 buffer descriptors of a shim tile, which has 8"),
        (PRODUCT, WHOLE, replace(XDNA1, task_queue=3), "starts 4 transfers on a channel.*queue holds 3; use fewer"),
        (ProductShape(1, 1500, 512, 8193), WHOLE, XDNA1, "moving A at a shim tile takes 65 repeats.*holds 64"),
        (ProductShape(1, 1500, 65537, 512), WHOLE, XDNA1, "moving A at a shim tile takes a wrap of 1,025 words.*1,023"),
        (PRODUCT, WHOLE, replace(XDNA1, shim_dimensions=2), "moving A at a shim tile takes 3 dimensions.*has 2"),
        (PRODUCT, WHOLE, replace(XDNA1, memory_dimensions=3), "moving A at a memory tile takes 4 dimensions.*has 3"),
        (ProductShape(1, 1500, 512, 8000), WHOLE, replace(XDNA1, max_stride=100_000), "B at.*stride of 258,048 w"),
        (ProductShape(1, 0, 512, 512), WHOLE, XDNA1, "at least 1"),
    ],
)  # fmt: skip
def test_the_reason_names_the_limit_and_its_figures(shape, geometry, device, reason):
    assert why_not(PRODUCT, WHOLE, XDNA1) is None
    with pytest.raises(UnsupportedShape, match=reason) as error:
        plan(shape, geometry, device)
    assert str(error.value).startswith(f"{geometry.name} on {device.name} cannot take {shape}: ")
    assert "\n" not in str(error.value)


def test_64_64_64_with_bf16_out_fits_a_core():
    bf16_out = replace(WHOLE, core_tiles=(Tile(64, 64, 64),), dtype_out="bf16")
    assert plan(PRODUCT, bf16_out, XDNA1).l1_bytes == 48 * 1024


def test_the_largest_product_within_each_limit_is_accepted():
    assert why_not(ProductShape(1, 1500, 512, 8192), WHOLE, XDNA1) is None
    assert why_not(ProductShape(1, 1500, 1023 * 64, 512), WHOLE, XDNA1) is None


def test_every_geometry_is_valid_on_exactly_its_devices():
    for geometry in GEOMETRIES:
        for device in DEVICES.values():
            assert (why_not(PRODUCT, geometry, device) is None) == (device.name in geometry.devices)


def test_other_micro_kernels_are_data():
    odd = replace(XDNA1, micro_kernels={"bf16": MicroKernel(Tile(5, 8, 4), Tile(5, 8, 4))})
    assert "m 64 % 5 = 4" in (why_not(PRODUCT, WHOLE, odd) or "")


def test_an_unknown_geometry_lists_the_known_ones():
    with pytest.raises(UnknownTarget, match=r"'whole-aray' \(did you mean 'whole-array'\?\).*seed-64x64") as error:
        find_geometry("whole-aray", XDNA1)
    assert isinstance(error.value, KernelError)


def test_planning_needs_no_torch():
    code = (
        "import sys, tilewhisper.kernels.xdna.profiles, tilewhisper.engine.commands.plan; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
