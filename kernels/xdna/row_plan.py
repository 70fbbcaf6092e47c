"""Designs that compute a function of each row of a matrix: what stays between the products of an encoder layer.

    add_norm    SUM = X + Y in float32, and NORMED = (SUM - mean) / sqrt(variance + eps), rounded to bf16. The weight
                and bias of a layer norm belong to the product that follows.
    softmax     WEIGHTS = softmax(SCORES + BIAS), rounded to bf16. BIAS is one number for each key: -inf masks it.

Each column of the array takes an equal share of consecutive rows. Its memory tile sends one row to each of the column's
cores and joins their results, so the rows go round the cores. An operand that is `shared` has a single row, which every
core receives once for each block of rows.

Whole-number arithmetic only. Sizes are in elements, rows are contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewhisper.kernels.base import UnsupportedShape
from tilewhisper.kernels.xdna.array import DTYPE_BYTES, WORD_BYTES, Device, Operand

EPSILON = 1e-5
"""`add_norm`'s eps: that of Whisper's layer norms."""


@dataclass(frozen=True)
class RowFunction:
    """A function of rows, and the buffers that it reads and writes."""

    name: str
    operands: tuple[Operand, ...]
    cores: int
    """Cores of a column: as many as the channels of a memory tile can serve, 6 in each direction."""
    shared: str | None = None
    """The operand with a single row for all rows."""


ROW_FUNCTIONS: Mapping[str, RowFunction] = {
    function.name: function
    for function in (
        RowFunction(
            "add_norm",
            (
                Operand("X", "f32", "to array"),
                Operand("Y", "bf16", "to array"),
                Operand("SUM", "f32", "from array"),
                Operand("NORMED", "bf16", "from array"),
            ),
            cores=2,
        ),
        RowFunction(
            "softmax",
            (
                Operand("SCORES", "f32", "to array"),
                Operand("BIAS", "f32", "to array"),
                Operand("WEIGHTS", "bf16", "from array"),
            ),
            cores=4,
            shared="BIAS",
        ),
    )
}


@dataclass(frozen=True)
class RowDesign:
    """The parameters of a compiled binary. Any number of rows shares the binary and its context."""

    device: str
    function: str
    rows: int
    """Cores in use of each column."""
    columns: int
    width: int
    """Elements of a row."""
    block: int
    """Rows that a core computes with one copy of the shared operand; 1 where nothing is shared."""

    @property
    def operands(self) -> tuple[Operand, ...]:
        return ROW_FUNCTIONS[self.function].operands

    @property
    def shared(self) -> str | None:
        return ROW_FUNCTIONS[self.function].shared

    @property
    def name(self) -> str:
        """`xdna1_4x4_softmax_1536_96`: device, rows x columns, function, width, and the block where there is one."""
        block = f"_{self.block}" if self.shared else ""
        return f"{self.device}_{self.rows}x{self.columns}_{self.function}_{self.width}{block}"


@dataclass(frozen=True)
class RowPlan:
    """One launch of a `RowDesign`."""

    design: RowDesign
    device: Device
    rows: int
    """Rows of data, of all columns together."""

    @property
    def title(self) -> str:
        """The launch's name among those of its design."""
        return f"{self.rows}rows"

    @property
    def description(self) -> str:
        return f"{self.design.function} of {self.rows} rows of {self.design.width}"

    @property
    def calls(self) -> int:
        return 1

    @property
    def elements(self) -> tuple[int, ...]:
        """Of each operand's buffer."""
        design = self.design
        return tuple((1 if o.name == design.shared else self.rows) * design.width for o in design.operands)

    @property
    def bytes_moved(self) -> int:
        """Between DDR and the array; the shared operand is read again for every block and column."""
        design = self.design
        times = {design.shared: self.blocks * design.columns}
        return sum(
            times.get(operand.name, 1) * elements * DTYPE_BYTES[operand.dtype]
            for operand, elements in zip(design.operands, self.elements, strict=True)
        )

    @property
    def rows_of_column(self) -> int:
        return self.rows // self.design.columns

    @property
    def blocks(self) -> int:
        """Blocks of rows of each core."""
        return self.rows_of_column // (self.design.rows * self.design.block)


def plan_rows(function: str, device: Device, rows: int, width: int, block: int = 1) -> RowPlan:
    """A launch for all columns of a device. Raises UnsupportedShape with the limit that it breaks."""
    found = RowPlan(
        RowDesign(device.name, function, ROW_FUNCTIONS[function].cores, device.columns, width, block), device, rows
    )
    if reason := next(_reasons(found), None):
        raise UnsupportedShape(f"{function} on {device.name} cannot take {rows} rows of {width}: {reason}")
    return found


def l1_bytes_of_rows(design: RowDesign) -> int:
    """Two objects of each operand in a core's memory."""
    return sum(2 * design.width * DTYPE_BYTES[operand.dtype] for operand in design.operands)


def l2_bytes_of_rows(design: RowDesign) -> int:
    """Two objects of each operand in a memory tile; a shared row is the same for all cores."""
    return sum(
        2 * design.width * DTYPE_BYTES[operand.dtype] * (1 if operand.name == design.shared else design.rows)
        for operand in design.operands
    )


def run_of(width: int, dtype: str, device: Device) -> int:
    """The longest part of a row, in elements, that divides it and fits one dimension of a descriptor."""
    words = width * DTYPE_BYTES[dtype] // WORD_BYTES
    longest = max(run for run in range(1, device.max_wrap + 1) if words % run == 0)
    return longest * WORD_BYTES // DTYPE_BYTES[dtype]


def row_repeats(rows: int, width: int, dtype: str, device: Device) -> int:
    """Into how many equal transfers a descriptor splits its rows: the size and the stride of each must fit it."""
    words = width * DTYPE_BYTES[dtype] // WORD_BYTES
    most = min(device.max_wrap, device.max_stride // words)
    return next(times for times in range(1, rows + 1) if rows % times == 0 and rows // times <= most)


def _reasons(plan: RowPlan) -> Iterator[str]:
    design, device = plan.design, plan.device
    if design.width * DTYPE_BYTES["bf16"] % (8 * WORD_BYTES) or min(plan.rows, design.width) < 1:
        yield "a row must have a multiple of 16 elements, and there must be at least one"
    together = design.rows * design.columns * design.block
    if plan.rows % together:
        yield f"the rows must be a multiple of {together}: {design.rows} x {design.columns} cores, {design.block} each"
    if (needed := l1_bytes_of_rows(design)) > (room := device.l1_bytes - device.stack_bytes):
        yield f"it needs {needed:,} bytes of L1, and a core has {room:,} beside its stack"
    if (needed := l2_bytes_of_rows(design)) > device.l2_bytes:
        yield f"it needs {needed:,} bytes of a memory tile, which has {device.l2_bytes:,}"
    if (needed := row_repeats(plan.rows_of_column, design.width, "f32", device)) > device.max_repeat:
        yield f"it takes {needed:,} repeats of a descriptor, which holds {device.max_repeat}"
    if design.shared and plan.blocks > device.max_repeat:
        yield f"it takes {plan.blocks:,} repeats of a descriptor, which holds {device.max_repeat}"
