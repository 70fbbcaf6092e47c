"""The configuration of the array that a plan needs."""

from tilewhisper.kernels.xdna.designs.product_structure import product_structure
from tilewhisper.kernels.xdna.designs.row_structure import row_structure
from tilewhisper.kernels.xdna.designs.structure import MicroKernels, Structure
from tilewhisper.kernels.xdna.row_plan import RowPlan
from tilewhisper.kernels.xdna.sequence import Plan


def structure_of(plan: Plan, kernels: MicroKernels) -> Structure:
    """The tiles, FIFOs, links, buffers and core programs of one launch."""
    return row_structure(plan, kernels) if isinstance(plan, RowPlan) else product_structure(plan, kernels)
