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


def device_line(report: RunReport) -> str | None:
    """What the host and the device did together; None if no device was used."""
    launches = {site.launch: (site.device_calls, site.planned_device_calls) for site in report.sites}
    calls, planned = (sum(pair[place] for pair in launches.values()) for place in (0, 1))
    if not calls:
        return None
    return (
        f"device: {calls:,} calls ({planned:,} planned), {counted(report.device_read_backs, 'read-back')} "
        f"in {counted(report.windows, 'encode')}"
    )


def summary_line(report: RunReport) -> str:
    """RTF, speed, tokens per second, memory, CPU time and energy in one line."""
    rate = f", {report.tokens_per_second:.0f} tokens/s" if report.tokens_per_second else ""
    memory = f", peak {report.peak_memory_bytes / 2**20:.0f} MiB" if report.peak_memory_bytes else ""
    speed = "" if report.rtf is None else f"RTF {report.rtf:.3f}, speed {report.speed:.1f}x real time: "
    used = report.cpu_seconds_per_audio_second
    processor = "" if used is None else f", {used:.3f} CPU s per audio s"
    per_minute = report.energy.joules_per_audio_minute
    energy = "" if per_minute is None else f", {per_minute:.3g} J (whole package) per audio minute"
    done = f"{report.audio_seconds:.1f} s of audio in {report.total.wall_seconds:.2f} s"
    return f"{speed}{done}{rate}{memory}{processor}{energy}"


def setting_line(report: RunReport) -> str:
    """The model, policy, language and machine of a run."""
    policy = " + ".join((report.policy, *report.backend_overrides))
    track = f"audio track {report.audio.track}, " if report.audio.track != "1" else ""
    threads = f"{counted(report.machine.threads, 'thread')} of {report.machine.cpu}"
    batches = f"batches of {report.batch_size}, " if report.batch_size > 1 else ""
    return (
        f"model {report.model} ({report.model_reason}; {report.weights}), policy {policy} on "
        f"{', '.join(report.backends)}, {track}language {_language(report)}, {batches}{threads}"
    )


def _language(report: RunReport) -> str:
    """The language, and how sure the detection was of it."""
    if report.language_probability is None:
        return report.language
    guess = ", a guess: no window holds speech" if report.language_is_guess else ""
    return f"{report.language} ({report.language_probability:.0%} sure{guess})"


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
    audio = f"{result.audio_seconds:.1f} s of audio in {counted(len(result.files), 'file')}"
    return (
        f"model {result.model}; {audio}; {speech}; {counted(len(result.rows[0].runs), 'run')} in turn after a warm-up; "
        f"ratio and same text against {result.baseline}; "
        f"{counted(result.machine.threads, 'thread')} of {result.machine.cpu}; {versions}"
    )


def quantity(value: float, unit: str) -> str:
    """A figure with its unit: seconds, bytes/s, Hz, or the unit's own words."""
    if unit == "s":
        return duration(value)
    giga = {"bytes/s": "GB/s", "Hz": "GHz"}
    return f"{value / 1e9:g} {giga[unit]}" if unit in giga else f"{value:g} {unit}"


def duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1e3:.4g} ms"


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def counted(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(stage: Stage) -> tuple[str, str]:
    return f"{stage.wall_seconds:.3f}", f"{stage.cpu_seconds:.3f}"
