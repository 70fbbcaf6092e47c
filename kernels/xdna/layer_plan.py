"""A whole encoder layer as a chain of launches, with buffers that stay on the device between them.

    add_norm   X, Y -> SUM = X + Y, NORMED          Y is what the layer before leaves to be added
    qkv        NORMED @ w_qkv -> QKV                the norm's weight and bias and the scale of q k^T are in w_qkv
    scores     for each head: Q_h K_h^T -> SCORES   float32
    softmax    SCORES + BIAS -> WEIGHTS             all heads in one launch; -inf in BIAS masks a key
    attended   for each head: WEIGHTS_h V_h -> a part of the columns of ATTENDED
    out        ATTENDED @ w_out -> Y'
    add_norm   SUM, Y' -> X of the next layer, NORMED
    fc1        GELU(NORMED @ w_fc1) -> HIDDEN
    fc2        HIDDEN @ w_fc2 -> Y of the next layer

Every result that a product reads is rounded to bf16; sums of products, scores and X are float32. Positions are padded
to `ROWS`: the padding computes numbers that nothing reads, because its keys are masked. So the designs do not depend on
the number of positions, and a model needs six: add_norm, softmax, and products of K = 64 (scores), K = ROWS (attended),
K = d_model and K = fc1's outputs. XDNA1 has six contexts. (tiny on XDNA2 needs a seventh, because 384 columns of
results take another core tile there.)

Softmax is a launch of its own, between two products: whisper-xdna measured three designs at 1,016 ms and one fused
design at 1,151 ms for the attention of large-v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tilewhisper.kernels.base import LayerShape, ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna.array import DTYPE_BYTES, Device, Geometry, Tile
from tilewhisper.kernels.xdna.devices import CORE_TILE
from tilewhisper.kernels.xdna.row_plan import ROW_FUNCTIONS, plan_rows
from tilewhisper.kernels.xdna.sequence import AnyDesign, Plan
from tilewhisper.kernels.xdna.tile_plan import View, Views
from tilewhisper.kernels.xdna.tiling import plan

ROWS = 1536
"""Positions, padded: the least multiple of the array's 256 rows that holds Whisper's 1,500."""
HEAD = 64
"""Whisper's size of a head, in every model."""


def layer_geometries(device: Device) -> Mapping[str, Geometry]:
    """How the products of a layer are cut on a device, by the kind of product."""
    tiles = (CORE_TILE,) if device.columns == 4 else (CORE_TILE, Tile(64, 64, 48))
    whole = Geometry(
        "linear",
        "the whole array; bias and activation in the core",
        (device.name,),
        rows=4,
        columns=device.columns,
        core_tiles=tiles,
        dtype_out="bf16",
        finish="bias",
    )
    scores = Geometry(
        "scores", "the whole array; B by columns", (device.name,), 4, device.columns, (CORE_TILE,), b_by_columns=True
    )
    # 64 columns of V are four columns of cores with 16 each: more would multiply padding.
    attended = Geometry(
        "attended",
        "four columns of cores",
        (device.name,),
        rows=4,
        columns=4,
        core_tiles=(Tile(64, 64, 16),),
        dtype_out="bf16",
        finish="round",
    )
    return {geometry.name: geometry for geometry in (whole, scores, attended)}


@dataclass(frozen=True)
class Matrix:
    """A buffer on the device, row-major."""

    rows: int
    columns: int
    dtype: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.columns * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Step:
    """Launches of one design that follow each other without the host: one, or one for each head."""

    name: str
    launches: tuple[Plan, ...]
    buffers: tuple[str, ...]
    """The buffer of each operand."""

    @property
    def design(self) -> AnyDesign:
        return self.launches[0].design


@dataclass(frozen=True)
class LayerPlan:
    """The steps of a layer and the buffers that they use."""

    shape: LayerShape
    device: Device
    steps: tuple[Step, ...]
    buffers: Mapping[str, Matrix]

    @property
    def calls(self) -> int:
        """Launches of a layer."""
        return sum(len(step.launches) for step in self.steps)

    @property
    def designs(self) -> tuple[AnyDesign, ...]:
        """The binaries, and therefore contexts, that a layer needs."""
        return tuple(dict.fromkeys(step.design for step in self.steps))


INPUTS, OUTPUTS = ("x", "y"), ("next_x", "next_y")
"""The activation before and after a layer: its value is the float32 matrix plus the bf16 one."""
WEIGHTS = ("w_qkv", "w_out", "w_fc1", "w_fc2")


@cache
def plan_layer(shape: LayerShape, device: Device) -> LayerPlan:
    """A layer of at most `ROWS` positions. Raises UnsupportedShape."""
    if shape.positions > ROWS:
        raise UnsupportedShape(f"a layer has at most {ROWS} positions on the device, got {shape.positions}")
    if shape.width != HEAD * shape.heads:
        raise UnsupportedShape(f"a layer on the device has heads of {HEAD}, got {shape.width} / {shape.heads}")
    width, hidden, heads = shape.width, shape.hidden, shape.heads
    buffers = _buffers(width, hidden, heads)
    return LayerPlan(
        shape,
        device,
        (
            Step("add_norm", (_add_norm(device, width),), ("x", "y", "sum", "normed")),
            _linear(device, "qkv", buffers, ("normed", "w_qkv", "qkv")),
            _scores(device, buffers, heads),
            Step("softmax", (_softmax(device, heads),), ("scores", "bias", "weights")),
            _attended(device, buffers, heads),
            _linear(device, "out", buffers, ("attended", "w_out", "added")),
            Step("add_norm", (_add_norm(device, width),), ("sum", "added", "next_x", "normed")),
            _linear(device, "fc1", buffers, ("normed", "w_fc1", "hidden")),
            _linear(device, "fc2", buffers, ("hidden", "w_fc2", "next_y")),
        ),
        buffers,
    )


def _buffers(width: int, hidden: int, heads: int) -> dict[str, Matrix]:
    def weight(k: int, n: int) -> Matrix:
        return Matrix(k + CORE_TILE.k, n, "bf16")  # the bias is in the block below

    return {
        "x": Matrix(ROWS, width, "f32"),
        "y": Matrix(ROWS, width, "bf16"),
        "sum": Matrix(ROWS, width, "f32"),
        "normed": Matrix(ROWS, width, "bf16"),
        "w_qkv": weight(width, 3 * width),
        "qkv": Matrix(ROWS, 3 * width, "bf16"),
        "scores": Matrix(heads * ROWS, ROWS, "f32"),
        "bias": Matrix(1, ROWS, "f32"),
        "weights": Matrix(heads * ROWS, ROWS, "bf16"),
        "attended": Matrix(ROWS, width, "bf16"),
        "w_out": weight(width, width),
        "added": Matrix(ROWS, width, "bf16"),
        "next_x": Matrix(ROWS, width, "f32"),
        "w_fc1": weight(width, hidden),
        "hidden": Matrix(ROWS, hidden, "bf16"),
        "w_fc2": weight(hidden, width),
        "next_y": Matrix(ROWS, width, "bf16"),
    }


def _whole(matrix: Matrix, row: int = 0, column: int = 0) -> View:
    """The part of a matrix that begins at a row and a column."""
    return View(matrix.rows, matrix.columns, row * matrix.columns + column)


def _add_norm(device: Device, width: int) -> Plan:
    return plan_rows("add_norm", device, ROWS, width)


def _softmax(device: Device, heads: int) -> Plan:
    block = ROWS // (ROW_FUNCTIONS["softmax"].cores * device.columns)
    return plan_rows("softmax", device, heads * ROWS, ROWS, block)


def _linear(device: Device, name: str, buffers: Mapping[str, Matrix], names: tuple[str, str, str]) -> Step:
    a, b, c = (buffers[each] for each in names)
    shape = ProductShape(1, ROWS, a.columns, c.columns)
    views = Views(_whole(a), _whole(b), _whole(c))
    return Step(name, (plan(shape, layer_geometries(device)["linear"], device, views),), names)


def _scores(device: Device, buffers: Mapping[str, Matrix], heads: int) -> Step:
    qkv, scores = buffers["qkv"], buffers["scores"]
    shape, geometry = ProductShape(1, ROWS, HEAD, ROWS), layer_geometries(device)["scores"]
    width = qkv.columns // 3

    def launch(head: int) -> Plan:
        q, k = _whole(qkv, column=head * HEAD), _whole(qkv, column=width + head * HEAD)
        return plan(shape, geometry, device, Views(q, k, _whole(scores, row=head * ROWS)))

    return Step("scores", tuple(map(launch, range(heads))), ("qkv", "qkv", "scores"))


def _attended(device: Device, buffers: Mapping[str, Matrix], heads: int) -> Step:
    qkv, weights, attended = buffers["qkv"], buffers["weights"], buffers["attended"]
    shape, geometry = ProductShape(1, ROWS, ROWS, HEAD), layer_geometries(device)["attended"]
    width = qkv.columns // 3

    def launch(head: int) -> Plan:
        p, v = _whole(weights, row=head * ROWS), _whole(qkv, column=2 * width + head * HEAD)
        return plan(shape, geometry, device, Views(p, v, _whole(attended, column=head * HEAD)))

    return Step("attended", tuple(map(launch, range(heads))), ("weights", "qkv", "attended"))
