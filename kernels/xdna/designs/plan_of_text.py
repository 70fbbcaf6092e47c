"""The plan of a design that was read from a text: which product, or which function of rows, it computes."""

from __future__ import annotations

from typing import get_args

from tilewhisper.kernels.base import ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna.array import Finish, Geometry, Tile
from tilewhisper.kernels.xdna.designs.reader import DesignError, ReadDesign
from tilewhisper.kernels.xdna.designs.structure import Block, Function, Loop, Structure, steps_of
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.row_plan import ROW_FUNCTIONS, plan_rows
from tilewhisper.kernels.xdna.sequence import Descriptor, Plan
from tilewhisper.kernels.xdna.tile_plan import TilePlan, View, Views
from tilewhisper.kernels.xdna.tiling import plan

_FINISH_OF: dict[str, Finish] = {"round": "round", "finish": "bias"}


def read_plan(design: ReadDesign) -> Plan:
    """The plan of a text's launch. Raises DesignError if there is none."""
    names = {function.name for function in design.structure.functions}
    try:
        if found := names & ROW_FUNCTIONS.keys():
            return _rows(design, found.pop())
        return _product(design)
    except UnsupportedShape as broken:
        raise DesignError(str(broken)) from broken


def _rows(design: ReadDesign, function: str) -> Plan:
    structure = design.structure
    (first, *_) = structure.arguments
    if len(first.shape) != 2 or design.operands != tuple(o.name for o in ROW_FUNCTIONS[function].operands):
        raise DesignError(f"expected the operands of {function}, with two dimensions")
    inner = [step.times for core in structure.cores for step in steps_of(core.program) if isinstance(step, Loop)][1:]
    block = inner[0] if inner and ROW_FUNCTIONS[function].shared else 1
    return plan_rows(function, DEVICES[structure.device], *first.shape, block)


def _product(design: ReadDesign) -> TilePlan:
    s = design.structure
    matmul = _matmul(s)
    if matmul is None or design.operands != ("A", "B", "C") or any(len(b.shape) != 2 for b in s.arguments):
        raise DesignError("expected one product of two matrices, with core tiles and operands of two dimensions")
    by_columns = "_transposed" in matmul.name
    (m, k), (first, second) = matmul.arguments[0].shape, matmul.arguments[1].shape
    n, k_of_b = (first, second) if by_columns else (second, first)
    if k != k_of_b or not s.cores:
        shapes = [block.shape for block in matmul.arguments]
        raise DesignError(f"cannot multiply core tiles {shapes} on {len(s.cores)} cores")
    core = Tile(m, k, n)
    geometry = Geometry(
        name="the design's",
        summary="read from a text",
        devices=(s.device,),
        rows=len({c.place.row for c in s.cores}),
        columns=len({c.place.column for c in s.cores}),
        core_tiles=(core,),
        dtype_in=s.arguments[0].dtype,
        dtype_out=s.arguments[2].dtype,
        b_by_columns=by_columns,
        finish=_finish(s),
    )
    launch = _launch(design, geometry, core)
    found = plan(ProductShape(1, launch.m, launch.k, launch.n), geometry, DEVICES[s.device], _views(design))
    if found.launch != launch:
        raise DesignError(f"operands must be padded to {found.launch}, got {launch}")
    return found


def _matmul(structure: Structure) -> Function | None:
    found = [function for function in structure.functions if function.name.startswith("matmul_")]
    return found[0] if len(found) == 1 and all(len(block.shape) == 2 for block in found[0].arguments) else None


def _finish(structure: Structure) -> Finish:
    kinds = [function.name.partition("_")[0] for function in structure.functions]
    return next((_FINISH_OF[kind] for kind in kinds if kind in _FINISH_OF), get_args(Finish)[0])


def _launch(design: ReadDesign, geometry: Geometry, core: Tile) -> Tile:
    """M and N from the transfers of one column's C, K from the core programs' loops."""
    loops = [step.times for step in steps_of(design.structure.cores[0].program) if isinstance(step, Loop)]
    of_c = _transfers(design, "C")
    if len(loops) != 2 or not of_c:
        raise DesignError("expected a core program with one loop over K, and transfers of C")
    high = geometry.rows * core.m
    m, n = sum(d.sizes[0] for d in of_c) * high, of_c[0].sizes[1] * core.n * geometry.columns
    return Tile(m, loops[1] * core.k, n)


def _views(design: ReadDesign) -> Views:
    a, b, c = (
        _view(block, _transfers(design, name))
        for name, block in zip(design.operands, design.structure.arguments, strict=True)
    )
    return Views(a, b, c)


def _view(block: Block, transfers: list[Descriptor]) -> View:
    rows, pitch = block.shape
    return View(rows, pitch, min((d.offset for d in transfers), default=0))


def _transfers(design: ReadDesign, operand: str) -> list[Descriptor]:
    """Of the first column that has any."""
    found = [item for item in design.sequence if isinstance(item, Descriptor) and item.operand == operand]
    return [item for item in found if item.column == found[0].column]
