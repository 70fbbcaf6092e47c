"""A product cut for an array: the padded sizes, the grid of host calls, and the bytes that each level moves.

A product (batch, m, k) @ (batch, k, n) is padded and cut twice. The host starts a call for each *call tile* and sums
the results over k; a geometry without a call tile computes each product of the batch in a single call. Inside a call
the array walks over *core tiles*: `rows` x `columns` of cores share a block of (rows * m) x (columns * n) results, A is
broadcast along a row of cores and B down a column, and the k-steps are summed on the core. Every buffer on the array is
double-buffered.

`cut` does whole-number arithmetic only and checks no limit: use `tiling.plan`, which does.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import (
    DTYPE_BYTES,
    WORD_BYTES,
    Device,
    Finish,
    Geometry,
    Operand,
    Tile,
    ceil_div,
)

BIAS_PARTS = 3
"""Rows below B whose float32 sum is the bias: a bf16 has 8 of a float32's 24 bits."""
IDENTITY, GELU = 0.0, 1.0
"""Names of activations, in the first element of a tile in the row after the bias."""
ROW_BLOCKS_IN_TURN = 2
"""Row blocks that share a set of shim descriptors."""
TURNS_AT_ONCE = 2
"""Sets of shim descriptors: one is filled while the other runs."""


@dataclass(frozen=True)
class Grid:
    """Host calls of one product of the batch: over m, over k (summed by the host), over n."""

    rows: int
    depth: int
    columns: int


@dataclass(frozen=True)
class View:
    """A matrix inside a buffer: a part of a larger row-major matrix. In elements."""

    rows: int
    """Of the larger matrix."""
    pitch: int
    """Its columns: the distance between two rows."""
    offset: int = 0
    """Of the matrix's first element."""


@dataclass(frozen=True)
class Views:
    """Where the operands of a launch are in their buffers."""

    a: View
    b: View
    """Of (k, n), or of (n, k) where B is stored by columns; a bias is the rows after the k-th."""
    c: View

    def of(self, operand: str) -> View:
        view: View = getattr(self, operand.lower())
        return view


@dataclass(frozen=True)
class Design:
    """The parameters of a compiled binary. Products of the same k and any m and n share the binary and its context."""

    device: str
    rows: int
    columns: int
    k: int
    core: Tile
    dtype_in: str
    dtype_out: str
    b_by_columns: bool = False
    finish: Finish = "none"

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("A", self.dtype_in, "to array"),
            Operand("B", self.dtype_in, "to array"),
            Operand("C", self.dtype_out, "from array"),
        )

    @property
    def name(self) -> str:
        """`xdna1_4x4_k384_64x64x32_bf16_f32`: device, rows x columns, K, core tile, dtypes; then what is special."""
        special = ("_by_columns" if self.b_by_columns else "") + ("" if self.finish == "none" else f"_{self.finish}")
        array = f"{self.rows}x{self.columns}"
        return f"{self.device}_{array}_k{self.k}_{self.core}_{self.dtype_in}_{self.dtype_out}{special}"


@dataclass(frozen=True)
class TilePlan:
    """A product, cut. Counts are of the whole batch unless their docstring says otherwise."""

    shape: ProductShape
    geometry: Geometry
    device: Device
    core: Tile
    launch: Tile
    """The block that one call computes, padded."""
    views: Views
    """Of the launch's operands; by default each has a buffer of its own."""
    padded: ProductShape
    grid: Grid
    bytes_a: int
    """Moved between DDR and the array, re-reads counted; likewise `bytes_b` and `bytes_c`."""
    bytes_b: int
    bytes_c: int
    host_bytes_a: int
    """Written by the host when nothing stays on the device between calls; likewise b; c is read back."""
    host_bytes_b: int
    host_bytes_c: int
    l1_bytes: int
    """Of each core, double-buffered, without the stack."""
    l2_bytes: int
    """Of the fullest memory tile."""
    row_blocks_per_transfer: int
    shim_descriptors: int
    """In use at the same time in the busiest shim tile."""
    queued_transfers: int
    """Started and perhaps not finished at the same time on the busiest channel of a shim tile."""

    @property
    def calls(self) -> int:
        """Kernel calls the host makes."""
        return self.shape.batch * self.grid.rows * self.grid.depth * self.grid.columns

    @property
    def core_steps(self) -> int:
        """Core tiles multiplied, over all cores."""
        return self.padded.multiply_adds // self.core.multiply_adds

    @property
    def bytes_moved(self) -> int:
        return self.bytes_a + self.bytes_b + self.bytes_c

    @property
    def waste(self) -> float:
        """Share of the multiply-adds that is padding."""
        return 1 - self.shape.multiply_adds / self.padded.multiply_adds

    @property
    def design(self) -> Design:
        g = self.geometry
        return Design(
            device=self.device.name,
            rows=g.rows,
            columns=g.columns,
            k=self.launch.k,
            core=self.core,
            dtype_in=g.dtype_in,
            dtype_out=g.dtype_out,
            b_by_columns=g.b_by_columns,
            finish=g.finish,
        )

    @property
    def title(self) -> str:
        """The launch's name among those of its design: `1536x384`, and where its operands are if they are parts."""
        size = f"{self.launch.m}x{self.launch.n}"
        if self.views == whole_views(self.geometry, self.core, self.launch):
            return size
        places = (f"{name}{view.offset}_{view.pitch}" for name, view in vars(self.views).items())
        return "_".join((size, *places))

    @property
    def description(self) -> str:
        m, k, n = self.launch.m, self.launch.k, self.launch.n
        return f"({m}, {k}) x ({k}, {n})"

    @property
    def elements(self) -> tuple[int, int, int]:
        """Of the buffers of A, B and C."""
        a, b, c = ((view.rows * view.pitch) for view in (self.views.a, self.views.b, self.views.c))
        return a, b, c


def whole_views(geometry: Geometry, core: Tile, launch: Tile) -> Views:
    """Each operand in a buffer of its own."""
    b_rows = launch.k + bias_rows(geometry, core)
    b = View(launch.n, launch.k) if geometry.b_by_columns else View(b_rows, launch.n)
    return Views(View(launch.m, launch.k), b, View(launch.m, launch.n))


def bias_rows(geometry: Geometry | Design, core: Tile) -> int:
    """Rows below B that carry the bias: one more block of B."""
    return core.k if geometry.finish == "bias" else 0


def cut(shape: ProductShape, geometry: Geometry, device: Device, views: Views | None = None) -> TilePlan:
    """The plan of a product whose sizes are >= 1, without checking the limits of the device."""
    core = core_tile(shape, geometry)
    step = geometry.call or array_tile(geometry, core)
    padded = ProductShape(shape.batch, _pad(shape.m, step.m), _pad(shape.k, step.k), _pad(shape.n, step.n))
    launch = geometry.call or Tile(padded.m, padded.k, padded.n)
    grid = Grid(padded.m // launch.m, padded.k // launch.k, padded.n // launch.n)
    calls = shape.batch * grid.rows * grid.depth * grid.columns
    size_in, size_out = DTYPE_BYTES[geometry.dtype_in], DTYPE_BYTES[geometry.dtype_out]
    views = views or whole_views(geometry, core, launch)
    host_a = size_in * launch.m * launch.k
    host_b = size_in * (launch.k + bias_rows(geometry, core)) * launch.n
    host_c = size_out * launch.m * launch.n
    row_blocks = launch.m // (geometry.rows * core.m)
    in_turn = _row_blocks_per_transfer(geometry, core, launch, device, views.c.pitch)
    turns_at_once = min(TURNS_AT_ONCE, ceil_div(row_blocks, in_turn))
    return TilePlan(
        shape=shape,
        geometry=geometry,
        device=device,
        core=core,
        launch=launch,
        views=views,
        padded=padded,
        grid=grid,
        # L2 caches nothing: A is read again for every block of columns, B for every block of rows.
        bytes_a=calls * host_a * (launch.n // (geometry.columns * core.n)),
        bytes_b=calls * host_b * row_blocks,
        bytes_c=calls * host_c,
        host_bytes_a=calls * host_a,
        host_bytes_b=calls * host_b,
        host_bytes_c=calls * host_c,
        l1_bytes=sum(l1_bytes(geometry, core)),
        l2_bytes=l2_bytes(geometry, core),
        row_blocks_per_transfer=in_turn,
        # Of each row block, one for A (of all rows of cores that the column sends) and one for B; one for C in a turn.
        shim_descriptors=turns_at_once * (1 + 2 * in_turn),
        # A and B each have a channel, and C one transfer in a turn.
        queued_transfers=turns_at_once * in_turn,
    )


def core_tile(shape: ProductShape, geometry: Geometry) -> Tile:
    """The core tile of the geometry that pads n least."""
    return min(geometry.core_tiles, key=lambda core: _pad(shape.n, geometry.columns * core.n))


def array_tile(geometry: Geometry, core: Tile) -> Tile:
    """The block that all cores together compute in one k-step."""
    return Tile(geometry.rows * core.m, core.k, geometry.columns * core.n)


def l1_bytes(geometry: Geometry, core: Tile) -> tuple[int, int, int]:
    """Double-buffered bytes of A, B and C in a core's memory; with C, the float32 sums that are rounded to it."""
    size_in, size_out = DTYPE_BYTES[geometry.dtype_in], DTYPE_BYTES[geometry.dtype_out]
    sums = 0 if geometry.finish == "none" else DTYPE_BYTES["f32"] * core.m * core.n
    return 2 * size_in * core.m * core.k, 2 * size_in * core.k * core.n, 2 * size_out * core.m * core.n + sums


def l2_bytes(geometry: Geometry, core: Tile) -> int:
    """Double-buffered bytes in the fullest memory tile: A of its rows of cores, B of its column, C of its cores."""
    a, b, _ = l1_bytes(geometry, core)
    c = 2 * DTYPE_BYTES[geometry.dtype_out] * core.m * core.n
    return _a_streams(geometry) * a + b + geometry.rows * c


def _row_blocks_per_transfer(geometry: Geometry, core: Tile, launch: Tile, device: Device, pitch: int) -> int:
    """1 where the stride between two row blocks of C exceeds a descriptor's limit: the fc1 of large, whose 256 rows of
    5,120 float32 are 1,310,720 words."""
    height = geometry.rows * core.m
    stride = height * pitch * DTYPE_BYTES[geometry.dtype_out] // WORD_BYTES
    return min(ROW_BLOCKS_IN_TURN, launch.m // height) if stride <= device.max_stride else 1


def _a_streams(geometry: Geometry) -> int:
    """Rows of cores whose A passes through the same column's shim and memory tile."""
    return ceil_div(geometry.rows, geometry.columns)


def _pad(size: int, multiple: int) -> int:
    return ceil_div(size, multiple) * multiple
