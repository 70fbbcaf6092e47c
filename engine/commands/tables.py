"""Format reports as rich tables and lines of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from tilewhisper.engine.report import RunReport, SiteReport, Stage
    from tilewhisper.engine.routing.policy import Route
    from tilewhisper.engine.tuning.benchmark import Benchmark
    from tilewhisper.engine.tuning.planning import EncoderPlan, PlannedProduct, PlannedSite, SeedRow
    from tilewhisper.kernels.xdna.cost import Figure, Profile
    from tilewhisper.kernels.xdna.tiling import Geometry

NPU_LIMITS = (
    "Before hoping for speed: a fast CPU does one projection of base, (1500, 512) x (512, 512), in about 1 ms. What an "
    "NPU gives is free cores and less energy.",
    "The best public result known here, whisper-xdna with the whole encoder of large-v3 on XDNA1, is 3.34 s a window "
    "with a quarter of a core busy; 16 CPU threads took 6.94 s.",
    "Not counted: fusing q, k and v, which share A, into one launch; run lists, which save about a quarter of the "
    "launch overhead.",
)
PYTHON_BATCH = 8
"""The batch of calls the seed tried."""


def stage_table(report: RunReport) -> Table:
    """Wall and CPU seconds by stage; below the total, the start of the command, which is not part of it."""
    table = Table("stage", box=None, pad_edge=False)
    for heading in ("calls", "wall s", "CPU s", "first call s"):
        table.add_column(heading, justify="right")
    for stage in report.stages:
        table.add_row(stage.name, str(stage.calls), *_seconds(stage), f"{stage.first_call_seconds:.3f}")
    table.add_row("total", "", *_seconds(report.total), style="bold")
    table.add_row("load (not in total)", "", *_seconds(report.load), style="dim")
    start = report.startup
    parts = (
        ("  weights (mapped)" if start.mapped else "  weights (read)", start.weights_seconds),
        ("  prepare backends", start.prepare_seconds),
        ("imports (before load)", start.import_seconds),
    )
    for name, seconds in parts:
        if seconds is not None:
            table.add_row(name, "", f"{seconds:.3f}", style="dim")
    return table


def backend_table(report: RunReport) -> Table:
    """Requested and used backends: a row for all sites with the same pair, then the decoder."""
    groups: defaultdict[tuple[str, str], list[SiteReport]] = defaultdict(list)
    for site in report.sites:
        groups[site.requested, ", ".join(site.used) or "none"].append(site)
    table = Table("requested", "used", box=None, pad_edge=False)
    on_device = any(site.device_calls for site in report.sites)
    for heading in ("sites", "calls", "wall s", *(("device calls", "device s") if on_device else ())):
        table.add_column(heading, justify="right")
    table.add_column("fallback reason")
    for (requested, used), sites in groups.items():
        calls, seconds = sum(site.calls for site in sites), sum(site.seconds for site in sites)
        reasons = dict.fromkeys(reason for site in sites for reason in site.fallback_reasons)
        launches = {site.launch: site.device_calls for site in sites}
        device = (str(sum(launches.values())), f"{sum(site.device_seconds for site in sites):.3f}") if on_device else ()
        table.add_row(requested, used, str(len(sites)), str(calls), f"{seconds:.3f}", *device, "; ".join(reasons))
    decoder, empty = report.decoder, [""] * (2 if on_device else 0)
    reason = decoder.fallback_reason or ""
    table.add_row(decoder.requested, decoder.used, "decoder", "", f"{report.decoder_seconds:.3f}", *empty, reason)
    return table


def summary_line(report: RunReport) -> str:
    """RTF, speed, tokens per second and memory in one line."""
    rate = f", {report.tokens_per_second:.0f} tokens/s" if report.tokens_per_second else ""
    memory = f", peak {report.peak_memory_bytes / 2**20:.0f} MiB" if report.peak_memory_bytes else ""
    return (
        f"RTF {report.rtf:.3f}, speed {report.speed:.1f}x real time: {report.audio_seconds:.1f} s of audio in "
        f"{report.total.wall_seconds:.2f} s{rate}{memory}"
    )


def setting_line(report: RunReport) -> str:
    """The model, policy, language and machine of a run."""
    policy = " + ".join((report.policy, *report.backend_overrides))
    batches = f"batches of {report.batch_size}, " if report.batch_size > 1 else ""
    return (
        f"model {report.model} ({report.weights}), policy {policy} on {', '.join(report.backends)}, "
        f"language {report.language}, {batches}{report.machine.threads} threads of {report.machine.cpu}"
    )


def route_table(routes: Iterable[tuple[Route, str]]) -> Table:
    """A row for each route; the second element of a pair is the text of its backend column."""
    table = Table(box=None, pad_edge=False)
    table.add_column("site", no_wrap=True)
    for heading in ("heads", "M", "K", "N"):
        table.add_column(heading, justify="right")
    for heading in ("backend", "fallback", "decided by"):
        table.add_column(heading)
    for route, backend in routes:
        site = route.site
        sizes = (str(site.batch) if site.batch > 1 else "", str(site.m), str(site.k), str(site.n))
        table.add_row(site.name, *sizes, backend, route.fallback or "", route.rule)
    return table


def benchmark_table(result: Benchmark) -> Table:
    """A row for each contender: median, minimum, maximum, ratio to the baseline, and equal texts."""
    from tilewhisper.engine.report import StageName  # imports torch

    table = Table("", box=None, pad_edge=False)
    for heading in ("RTF median", "min", "max", "speed", "ratio", "encode s", "decode s", "same text", "same tokens"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        stages = (
            f"{row.stages[name]:.3f}" if name in row.stages else "-" for name in (StageName.ENCODE, StageName.DECODE)
        )
        same = (f"{count}/{len(result.files)}" for count in (row.same_text, row.same_tokens))
        rtfs = (f"{rtf:.4f}" for rtf in (row.rtf_median, row.rtf_min, row.rtf_max))
        table.add_row(row.name, *rtfs, f"{row.speed:.1f}x", f"{row.ratio:.2f}", *stages, *same)
    return table


def benchmark_line(result: Benchmark) -> str:
    """The model, audio, options and machine of a benchmark."""
    versions = ", ".join(f"{name} {result.machine.packages[name]}" for name in ("torch", "transformers"))
    speech = f"language {result.speech.language or 'detected'}, {result.speech.task}, greedy, timestamps"
    return (
        f"model {result.model}; {result.audio_seconds:.1f} s of audio in {len(result.files)} file(s); {speech}; "
        f"{len(result.rows[0].runs)} runs in turn after a warm-up; ratio and same text against {result.baseline}; "
        f"{result.machine.threads} threads of {result.machine.cpu}; {versions}"
    )


def plan_setting_line(geometry: Geometry, profile: Profile) -> str:
    """What cuts and what times."""
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
    """What one window takes when these products of all layers, and nothing else, are on the NPU."""
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
    """What the predicted speed leaves out, in figures of this encoder."""
    projections, with_ffn, _ = encoder.scopes
    return (
        f"The q, k, v and out projections are {projections.share:.0%} of the multiply-adds in this encoder's layers, "
        f"{with_ffn.share:.0%} with fc1 and fc2. Each speed counts the products of its row alone: the rest of the "
        "encoder, the decoder and the audio come on top.",
        *NPU_LIMITS,
    )


def planned_product_table(planned: PlannedProduct) -> Table:
    """One product, all that is known of it."""
    p, cost = planned.plan, planned.cost
    rows = [
        ("padded", f"{p.padded}, {p.waste:.1%} of the work is padding"),
        ("host calls", f"{p.calls:,} = {p.grid.rows} over M x {p.grid.depth} over K x {p.grid.columns} over N"),
        ("a call", f"{p.launch}, in core tiles of {p.core} on {p.geometry.rows}x{p.geometry.columns} cores"),
        ("moved", f"{p.bytes_moved:,} bytes: A {p.bytes_a:,}, B {p.bytes_b:,}, C {p.bytes_c:,}"),
        ("L1 of a core", f"{p.l1_bytes:,} of {p.device.l1_bytes - p.device.stack_bytes:,} bytes"),
        ("memory tile", f"{p.l2_bytes:,} of {p.device.l2_bytes:,} bytes"),
        ("descriptors", f"{p.shim_descriptors} of {p.device.shim_descriptors} of a shim tile"),
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
    """The seed's figures beside ours: one projection, and the encoder's of them."""
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
    """How to read the two times, and why figures differ."""
    return (
        "flat: every call takes 54.4 ms, as the seed reckons. scaled: a call's compute grows with its multiply-adds, "
        "which fewer, larger calls do not save.",
        *(f"{row.geometry}: {row.claim.why}." for row in rows if row.claim.why),
    )


def figure_table(figures: Iterable[Figure]) -> Table:
    """What a prediction rests on, and whose word each figure is."""
    rows = ((figure.what, quantity(figure.value, figure.unit), figure.basis, figure.source) for figure in figures)
    return plain_table(("figure", "value", "basis", "source"), rows)


def quantity(value: float, unit: str) -> str:
    if unit == "s":
        return duration(value)
    scale, prefix = (1e12, "T") if value >= 1e12 else (1e9, "G")
    return f"{value / scale:g} {prefix}{'B/s' if unit == 'bytes/s' else 'op/s'}"


def duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1e3:.4g} ms"


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _seconds(stage: Stage) -> tuple[str, str]:
    return f"{stage.wall_seconds:.3f}", f"{stage.cpu_seconds:.3f}"
