"""How a product is cut for an array of AI Engine cores: integers in, a frozen `TilePlan` out.

A product (batch, m, k) @ (batch, k, n) is padded and cut twice. The host starts one call for each *call tile* and sums
the calls over k; a geometry without a call tile takes each product of the batch whole, in one call. Inside a call the
array walks over *core tiles*: `rows` x `columns` of cores share a block of (rows * m) x (columns * n) results, A is
broadcast along a row of cores and B down a column, and the k-steps are summed on the core.

Bytes are bytes, sizes and strides of a `Transfer` are elements (outermost first), limits of a device are those of its
descriptors in 32-bit words. Every level is double-buffered.

Does not know time (`cost`), tensors, backends, layers or models, and does no arithmetic but on whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, product
from typing import Literal

from tilewhisper.kernels.base import ProductShape, UnsupportedShape

WORD_BYTES = 4
DTYPE_BYTES: Mapping[str, int] = {"bf16": 2, "f32": 4, "int8": 1, "int32": 4}

ROW_BLOCKS_IN_TURN = 2
"""Row blocks that one set of shim descriptors serves; two sets alternate, so that one is filled while one runs."""


@dataclass(frozen=True)
class Tile:
    """A block of a product: (m, k) @ (k, n)."""

    m: int
    k: int
    n: int

    @property
    def multiply_adds(self) -> int:
        return self.m * self.k * self.n

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"


@dataclass(frozen=True)
class MicroKernel:
    """`tile` is the (r, s, t) of one matrix instruction; `block` what the vectorised loop around it takes at once."""

    tile: Tile
    block: Tile


@dataclass(frozen=True)
class Device:
    """An array of cores and the limits of its memories and descriptors."""

    name: str
    summary: str
    rows: int
    columns: int
    micro_kernels: Mapping[str, MicroKernel] = field(hash=False)
    """By input dtype."""
    max_contexts: int
    """Designs that may be loaded at once, by all processes together."""
    l1_bytes: int = 64 * 1024
    """Of a core."""
    stack_bytes: int = 1024
    """Of a core's L1, not to be had for tiles."""
    l2_bytes: int = 512 * 1024
    """Of a memory tile; there is one a column."""
    shim_descriptors: int = 16
    shim_dimensions: int = 3
    """Beside a repeat."""
    memory_dimensions: int = 4
    max_wrap: int = 1023
    max_repeat: int = 64
    max_stride: int = 2**20

    @property
    def cores(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Geometry:
    """A way to cut products, as data."""

    name: str
    summary: str
    devices: tuple[str, ...]
    rows: int
    columns: int
    core_tiles: tuple[Tile, ...]
    """Of these a product takes the one that pads n least, the first of equals."""
    call: Tile | None = None
    """What one host call computes; None where a call takes a whole product."""
    dtype_in: str = "bf16"
    dtype_out: str = "f32"

    @property
    def cores(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Grid:
    """Host calls of one product of the batch: over m, over k (summed by the host), over n."""

    rows: int
    depth: int
    columns: int


@dataclass(frozen=True)
class Design:
    """What a compiled binary is made for: products of any m and n, of this k, share it and its context."""

    device: str
    rows: int
    columns: int
    k: int
    core: Tile
    dtype_in: str
    dtype_out: str


@dataclass(frozen=True)
class HostCall:
    """One call's place in the grid. Calls of one output tile follow each other, to be summed over `depth`."""

    batch: int
    row: int
    column: int
    depth: int


@dataclass(frozen=True)
class Transfer:
    """The addresses one buffer descriptor walks: sizes and strides in elements, outermost first."""

    operand: Literal["A", "B", "C"]
    at: Literal["shim tile", "memory tile"]
    dtype: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def sizes_in_words(self) -> tuple[int, ...]:
        """The innermost size is a run of consecutive elements, so it alone is counted in words."""
        return (*self.sizes[:-1], self._words(self.sizes[-1]))

    @property
    def strides_in_words(self) -> tuple[int, ...]:
        """The innermost stride is 1 element, which is 1 word to the descriptor."""
        return (*(self._words(stride) for stride in self.strides[:-1]), 1)

    def _words(self, elements: int) -> int:
        return _ceil_div(elements * DTYPE_BYTES[self.dtype], WORD_BYTES)


@dataclass(frozen=True)
class TilePlan:
    """One product, cut. All counts are of the whole batch, except those said to be of one call."""

    shape: ProductShape
    geometry: Geometry
    device: Device
    core: Tile
    launch: Tile
    """What one call computes, padded."""
    padded: ProductShape
    grid: Grid
    bytes_a: int
    """Moved between DDR and the array, re-reads counted; likewise `bytes_b` and `bytes_c`."""
    bytes_b: int
    bytes_c: int
    host_bytes_a: int
    """Filled by the host where nothing stays on the device between calls; likewise b; c is read back."""
    host_bytes_b: int
    host_bytes_c: int
    l1_bytes: int
    """Of each core, double-buffered, stack not counted."""
    l2_bytes: int
    """Of the fullest memory tile."""
    row_blocks_per_transfer: int
    shim_descriptors: int
    """In use at once in the busiest shim tile."""

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
        return Design(self.device.name, g.rows, g.columns, self.launch.k, self.core, g.dtype_in, g.dtype_out)


def plan(shape: ProductShape, geometry: Geometry, device: Device) -> TilePlan:
    """Raises UnsupportedShape with the reason of `why_not`."""
    if reason := why_not(shape, geometry, device):
        raise UnsupportedShape(f"{geometry.name} on {device.name} cannot take {shape}: {reason}")
    return _cut(shape, geometry, device)


def why_not(shape: ProductShape, geometry: Geometry, device: Device) -> str | None:
    """The first limit that the product breaks, with its figures, or None where it fits."""
    core = _core_tile(shape, geometry)
    return next(chain(_geometry_reasons(geometry, core, device), _product_reasons(shape, geometry, device)), None)


def host_calls(plan: TilePlan) -> Iterator[HostCall]:
    """Every call the host makes, in order."""
    grid = plan.grid
    order = product(range(plan.shape.batch), range(grid.rows), range(grid.columns), range(grid.depth))
    return (HostCall(*place) for place in order)


def grouped_calls(plan: TilePlan, size: int) -> Iterator[tuple[HostCall, ...]]:
    """The same calls handed over `size` at a time: fewer hand-overs, not fewer calls."""
    calls = host_calls(plan)
    while group := tuple(islice(calls, size)):
        yield group


def transfers(plan: TilePlan) -> tuple[Transfer, ...]:
    """The address patterns of one call: DDR through the shim tiles, and the layouts the memory tiles make.

    At the shim a row block is (rows * m) results high, and A and B are sent once a row block. The memory tiles cut
    core tiles into the (r, s, t) blocks of the matrix instruction, and put C together again.
    """
    g, core, call = plan.geometry, plan.core, plan.launch
    micro = plan.device.micro_kernels[g.dtype_in].tile
    r, s, t = micro.m, micro.k, micro.n
    m, k, n = core.m, core.k, core.n
    across, steps, height = call.n // (n * g.columns), call.k // k, m * g.rows
    a_shim = ((across, steps, m, k), (0, k, call.k, 1))
    b_shim = ((across, steps, k, n), (n * g.columns, k * call.n, call.n, 1))
    c_shim = (
        (plan.row_blocks_per_transfer, across, height, n),
        (height * call.n, n * g.columns, call.n, 1),
    )
    a_core = ((m // r, k // s, r, s), (r * k, s, k, 1))
    b_core = ((k // s, n // t, s, t), (s * n, t, n, 1))
    c_core = ((m // r, r, n // t, t), (r * n, t, r * t, 1))
    return (
        Transfer("A", "shim tile", g.dtype_in, *a_shim),
        Transfer("B", "shim tile", g.dtype_in, *b_shim),
        Transfer("C", "shim tile", g.dtype_out, *c_shim),
        Transfer("A", "memory tile", g.dtype_in, *a_core),
        Transfer("B", "memory tile", g.dtype_in, *b_core),
        Transfer("C", "memory tile", g.dtype_out, *c_core),
    )


def _cut(shape: ProductShape, geometry: Geometry, device: Device) -> TilePlan:
    core = _core_tile(shape, geometry)
    step = geometry.call or _array_tile(geometry, core)
    padded = ProductShape(shape.batch, *(_pad(size, to) for size, to in _sizes(shape, step)))
    launch = geometry.call or Tile(padded.m, padded.k, padded.n)
    grid = Grid(padded.m // launch.m, padded.k // launch.k, padded.n // launch.n)
    calls = shape.batch * grid.rows * grid.depth * grid.columns
    size_in, size_out = DTYPE_BYTES[geometry.dtype_in], DTYPE_BYTES[geometry.dtype_out]
    host_a, host_b = size_in * launch.m * launch.k, size_in * launch.k * launch.n
    host_c = size_out * launch.m * launch.n
    row_blocks = launch.m // (geometry.rows * core.m)
    in_turn = _row_blocks_per_transfer(geometry, core, launch, device)
    return TilePlan(
        shape=shape,
        geometry=geometry,
        device=device,
        core=core,
        launch=launch,
        padded=padded,
        grid=grid,
        # Nothing is kept in L2: A is read again for every block of columns, B for every block of rows.
        bytes_a=calls * host_a * (launch.n // (geometry.columns * core.n)),
        bytes_b=calls * host_b * row_blocks,
        bytes_c=calls * host_c,
        host_bytes_a=calls * host_a,
        host_bytes_b=calls * host_b,
        host_bytes_c=calls * host_c,
        l1_bytes=sum(_l1_bytes(geometry, core)),
        l2_bytes=_l2_bytes(geometry, core),
        row_blocks_per_transfer=in_turn,
        shim_descriptors=min(2, _ceil_div(row_blocks, in_turn)) * (1 + in_turn * (_a_streams(geometry) + 1)),
    )


def _core_tile(shape: ProductShape, geometry: Geometry) -> Tile:
    return min(geometry.core_tiles, key=lambda core: _pad(shape.n, geometry.columns * core.n))


def _array_tile(geometry: Geometry, core: Tile) -> Tile:
    """What all cores compute in one k-step."""
    return Tile(geometry.rows * core.m, core.k, geometry.columns * core.n)


def _row_blocks_per_transfer(geometry: Geometry, core: Tile, launch: Tile, device: Device) -> int:
    """One where the stride from a row block of C to the next is more than a descriptor holds: large's fc1, whose
    256 rows of 5,120 float32 are 1,310,720 words."""
    height = geometry.rows * core.m
    stride = height * launch.n * DTYPE_BYTES[geometry.dtype_out] // WORD_BYTES
    return min(ROW_BLOCKS_IN_TURN, launch.m // height) if stride <= device.max_stride else 1


def _a_streams(geometry: Geometry) -> int:
    """Rows of cores whose A goes through one column's shim and memory tile."""
    return _ceil_div(geometry.rows, geometry.columns)


def _l1_bytes(geometry: Geometry, core: Tile) -> tuple[int, int, int]:
    """Of A, B and C."""
    size_in, size_out = DTYPE_BYTES[geometry.dtype_in], DTYPE_BYTES[geometry.dtype_out]
    return 2 * size_in * core.m * core.k, 2 * size_in * core.k * core.n, 2 * size_out * core.m * core.n


def _l2_bytes(geometry: Geometry, core: Tile) -> int:
    a, b, c = _l1_bytes(geometry, core)
    return _a_streams(geometry) * a + b + geometry.rows * c


def _geometry_reasons(geometry: Geometry, core: Tile, device: Device) -> Iterator[str]:
    """What the geometry itself breaks, whatever the product."""
    for what, needed, there in (
        ("rows", geometry.rows, device.rows),
        ("columns", geometry.columns, device.columns),
    ):
        if needed > there:
            yield f"it uses {needed} {what} of cores and the device has {there}"
    if device.name not in geometry.devices:
        yield f"it is made for {', '.join(geometry.devices)}"
    micro = device.micro_kernels.get(geometry.dtype_in)
    if micro is None:
        known = ", ".join(device.micro_kernels)
        yield f"the device has no micro-kernel for {geometry.dtype_in}; it has {known}"
        return
    for what, part in (("micro-kernel", micro.tile), ("vectorised kernel's block", micro.block)):
        yield from _indivisible("core tile", core, what, part)
    if geometry.call:
        yield from _indivisible("call tile", geometry.call, "array's tile", _array_tile(geometry, core))
    a, b, c = _l1_bytes(geometry, core)
    if a + b + c > (room := device.l1_bytes - device.stack_bytes):
        yield (
            f"the core tile {core} needs {a + b + c:,} bytes of L1 (A {a:,} + B {b:,} + C {c:,}, double-buffered) "
            f"and a core has {room:,} beside its stack"
        )
    if (needed := _l2_bytes(geometry, core)) > device.l2_bytes:
        yield f"the core tile {core} needs {needed:,} bytes of a memory tile, which has {device.l2_bytes:,}"


def _product_reasons(shape: ProductShape, geometry: Geometry, device: Device) -> Iterator[str]:
    """What this product breaks; the geometry itself is known to be sound."""
    if min(shape.batch, shape.m, shape.k, shape.n) < 1:
        yield "every size must be at least 1"
        return
    cut = _cut(shape, geometry, device)
    if cut.shim_descriptors > device.shim_descriptors:
        yield f"it needs {cut.shim_descriptors} buffer descriptors of a shim tile, which has {device.shim_descriptors}"
    for transfer in transfers(cut):
        for reason in _transfer_reasons(transfer, device):
            yield f"moving {transfer.operand} at a {transfer.at} {reason}"


def _transfer_reasons(transfer: Transfer, device: Device) -> Iterator[str]:
    sizes, strides = transfer.sizes_in_words, transfer.strides_in_words
    dimensions = device.memory_dimensions
    if transfer.at == "shim tile":
        repeat, *sizes_within = sizes
        if repeat > device.max_repeat:
            yield f"takes {repeat:,} repeats, and a descriptor holds {device.max_repeat}; split the product"
        sizes, dimensions = tuple(sizes_within), device.shim_dimensions
    if len(sizes) > dimensions:
        yield f"takes {len(sizes)} dimensions, and a descriptor has {dimensions}"
    if max(sizes) > device.max_wrap:
        yield f"takes a wrap of {max(sizes):,} words, and a descriptor holds {device.max_wrap:,}; split the product"
    walked = [stride for size, stride in zip(transfer.sizes, strides, strict=True) if size > 1]
    if walked and max(walked) > device.max_stride:
        yield f"takes a stride of {max(walked):,} words, and a descriptor holds {device.max_stride:,}"


def _indivisible(what: str, whole: Tile, by: str, part: Tile) -> Iterator[str]:
    for name in ("m", "k", "n"):
        size, divisor = getattr(whole, name), getattr(part, name)
        if rest := size % divisor:
            yield f"the {what} {whole} does not divide by the {by} {part}: {name} {size} % {divisor} = {rest}"


def _sizes(shape: ProductShape, step: Tile) -> tuple[tuple[int, int], ...]:
    return (shape.m, step.m), (shape.k, step.k), (shape.n, step.n)


def _pad(size: int, to: int) -> int:
    return _ceil_div(size, to) * to


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
