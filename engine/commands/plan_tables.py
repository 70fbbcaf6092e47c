"""NPU plans as rich tables and lines of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from tilewhisper.engine.commands.tables import duration, plain_table, quantity

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.planning import EncoderPlan, PlannedProduct, PlannedSite, SeedRow
    from tilewhisper.kernels.xdna.array import Geometry
    from tilewhisper.kernels.xdna.cost import Figure, Profile

NPU_LIMITS = (
    "For comparison: a fast CPU computes one projection of base, (1500, 512) x (512, 512), in about 1 ms. Product by "
    "product the gain of an NPU is free cores and less energy, more than speed.",
    "The best public result known here, whisper-xdna with the whole encoder of large-v3 on XDNA1, is 3.34 s a window "
    "with a quarter of a core busy; 16 CPU threads took 6.94 s.",
    "Not counted: fusing q, k and v, which share A, into one launch; run lists, which save about a quarter of the "
    "launch overhead.",
)
PYTHON_BATCH = 8
"""The batch size that the seed tried for its calls."""


def plan_setting_line(geometry: Geometry, profile: Profile) -> str:
    """The geometry that cuts and the profile that predicts the times."""
    return f"geometry {geometry.name}: {geometry.summary}; device {profile.name}: {profile.summary}"


def planned_sites_table(encoder: EncoderPlan) -> Table:
    """A row for each role in a layer; calls, bytes and time are of one site."""
    groups: defaultdict[str, list[PlannedSite]] = defaultdict(list)
    for planned in encoder.sites:
        groups[planned.role].append(planned)
    table = Table("site", box=None, pad_edge=False)
    for heading in ("sites", "product", "core tile", "padding", "calls", "MB moved", "device ms", "host ms"):
        table.add_column(heading, justify="right")
    table.add_column("bound by")
    for role, (planned, *rest) in groups.items():
        plan, cost = planned.product.plan, planned.product.cost
        table.add_row(
            role,
            str(1 + len(rest)),
            str(plan.shape),
            str(plan.core),
            f"{plan.waste:.1%}",
            f"{plan.calls:,}",
            f"{plan.bytes_moved / 1e6:,.1f}",
            f"{cost.device * 1e3:,.2f}",
            f"{cost.host * 1e3:,.2f}",
            cost.bound_by,
        )
    return table


def scope_table(encoder: EncoderPlan, max_contexts: int) -> Table:
    """The predicted time of one window with these products of all layers, and nothing else, on the NPU."""
    table = Table("on the NPU", box=None, pad_edge=False)
    for heading in ("sites", "of the work", "calls", "MB moved", "designs", "changes", "device s", "host s", "sum s"):
        table.add_column(heading, justify="right")
    table.add_column("speed at most", justify="right")
    for scope in encoder.scopes:
        table.add_row(
            scope.name,
            str(len(scope.sites)),
            f"{scope.share:.0%}",
            f"{scope.calls:,}",
            f"{scope.bytes_moved / 1e6:,.0f}",
            f"{scope.designs} of {max_contexts}",
            str(scope.switches),
            f"{scope.cost.device:,.3f}",
            f"{scope.cost.host:,.3f}",
            f"{scope.cost.seconds:,.3f}",
            f"{scope.speed:.2g}x" if scope.speed < 10 else f"{scope.speed:,.0f}x",
        )
    return table


def encoder_limits(encoder: EncoderPlan) -> tuple[str, ...]:
    """The work that the predicted speed does not count, in figures of this encoder."""
    projections, with_ffn, _ = encoder.scopes
    return (
        f"The q, k, v and out projections are {projections.share:.0%} of the multiply-adds in this encoder's layers, "
        f"{with_ffn.share:.0%} with fc1 and fc2. Each speed counts only the products of its row: the rest of the "
        "encoder, the decoder and the audio take additional time.",
        *NPU_LIMITS,
    )


def planned_product_table(planned: PlannedProduct) -> Table:
    """All figures of one planned product."""
    p, cost = planned.plan, planned.cost
    rows = [
        ("padded", f"{p.padded}, {p.waste:.1%} of the work is padding"),
        ("host calls", f"{p.calls:,} = {p.grid.rows} over M x {p.grid.depth} over K x {p.grid.columns} over N"),
        ("a call", f"{p.launch}, in core tiles of {p.core} on {p.geometry.rows}x{p.geometry.columns} cores"),
        ("moved", f"{p.bytes_moved:,} bytes: A {p.bytes_a:,}, B {p.bytes_b:,}, C {p.bytes_c:,}"),
        ("L1 of a core", f"{p.l1_bytes:,} of {p.device.l1_bytes - p.device.stack_bytes:,} bytes"),
        ("memory tile", f"{p.l2_bytes:,} of {p.device.l2_bytes:,} bytes"),
        ("descriptors", f"{p.shim_descriptors} of {p.device.shim_descriptors} of a shim tile"),
        ("task queue", f"{p.queued_transfers} of {p.device.task_queue} transfers on the busiest channel"),
        ("time", f"{duration(cost.device)} on the device, {duration(cost.host)} on the host: {duration(cost.seconds)}"),
        (
            "device time",
            f"overhead {duration(cost.overhead)}, transfer {duration(cost.transfer)}, "
            f"compute {duration(cost.compute)}; bound by {cost.bound_by}",
        ),
    ]
    if p.geometry.call:
        groups = -(-p.calls // PYTHON_BATCH)
        rows.append(("batched", f"by {PYTHON_BATCH} in Python: {groups:,} batches, and still {p.calls:,} calls"))
    return plain_table(("product", str(p.shape)), rows)


def seed_table(rows: Sequence[SeedRow]) -> Table:
    """The seed's figures beside ours: one projection, and all projections of its encoder."""
    table = Table("the seed's (3001, 512) x (512, 512)", box=None, pad_edge=False)
    many = f"x {rows[0].projections}"
    headings = ("calls: seed says", "counted", "s: seed says", "flat", many, "scaled", many)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        claim = f"{row.claim.seconds:.1f} {'measured' if row.claim.timed else 'claimed'}"
        seconds = (row.flat_seconds, row.scaled_seconds)
        times = (f"{factor * value:,.1f}" for value in seconds for factor in (1, row.projections))
        table.add_row(row.geometry, f"{row.claim.calls:,}", f"{row.calls:,}", claim, *times)
    return table


def seed_lines(rows: Sequence[SeedRow]) -> tuple[str, ...]:
    """The meaning of the two times, and the reasons why figures differ."""
    return (
        "flat: every call takes 54.4 ms, as the seed assumes. scaled: a call's compute time grows with its "
        "multiply-adds, which fewer, larger calls do not save.",
        *(f"{row.geometry}: {row.claim.why}." for row in rows if row.claim.why),
    )


def figure_table(figures: Iterable[Figure]) -> Table:
    """The figures that a prediction rests on, each with its source."""
    rows = ((figure.name, quantity(figure.value, figure.unit), figure.basis, figure.source) for figure in figures)
    return plain_table(("figure", "value", "basis", "source"), rows)
