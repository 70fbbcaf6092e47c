"""The times of an encode on an NPU beside this machine's CPU, as tables and sentences: of one model or of all sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tilewhisper.engine.commands.screen import say
from tilewhisper.engine.commands.tables import counted

if TYPE_CHECKING:
    from tilewhisper.engine.tuning.encode_times import EncodeTimes

_COUNTED = (
    "Counted are the encoder's layers for one window of 30 s: the stem, the audio and the decoder run on the CPU in "
    "any case. The CPU's times are those of one layer with random weights, measured now, times the number of layers."
)
LESSONS = (
    "No design of this project has run on an NPU. The nearest measurement is whisper-xdna's: 3.34 s for the layers of "
    "large-v3 on XDNA1, chained in part, with norms and residuals on the host.",
    "whisper-xdna came from 8.6 s to 3.3 s for large-v3 on XDNA1: keeping fc1, GELU and fc2 on the device saved 0.8 s, "
    "run lists over the heads 1.4 s. One fused design for attention lost, with 1,151 against 1,016 ms.",
)
"""What others measured about ways of using an NPU."""


def show_encode(screen: Console, times: EncodeTimes) -> None:
    """One model on one NPU."""
    screen.print(_ways(times))
    say(screen, f"{times.models} on {times.profile}: {times.verdict}.")
    _explain(screen, times)


def show(screen: Console, sizes: Sequence[EncodeTimes]) -> None:
    """All sizes on some NPUs."""
    screen.print(_sizes(sizes))
    screen.print()
    for times in sizes:
        say(screen, f"{times.models} on {times.profile}: {times.verdict}.")
    screen.print()
    _explain(screen, sizes[0])


def _explain(screen: Console, times: EncodeTimes) -> None:
    say(screen, _COUNTED)
    say(screen, f"This machine: {counted(times.threads, 'thread')} of {times.cpu_name}.")
    for missing in times.missing:
        say(screen, f"backend {missing}; torch's float32 takes its place in the CPU's times.")
    if times.why_no_layers:
        say(screen, f"No whole layers: {times.why_no_layers}.")
    for line in LESSONS:
        say(screen, line)


def _ways(times: EncodeTimes) -> Table:
    table = Table("one encode", "policy", box=None, pad_edge=False)
    for heading in ("launches", "changes", "round trips", "NPU s", "host s", "CPU s", "sum s", "busy cores"):
        table.add_column(heading, justify="right")
    for way in times.ways:
        counts = (f"{way.launches:,}", str(way.switches), str(way.round_trips))
        seconds = (f"{value:.3f}" for value in (way.device, way.host, way.rest, way.seconds))
        table.add_row(f"NPU: {way.name}", way.policy, *counts, *seconds, f"{way.busy_cores(times.threads):.1f}")
    for policy, seconds_of_cpu in times.policies:
        cpu = f"{seconds_of_cpu:.3f}"
        table.add_row("this machine's CPU", policy, "", "", "", "", "", cpu, cpu, str(times.threads))
    return table


def _sizes(sizes: Sequence[EncodeTimes]) -> Table:
    table = Table("seconds of one encode", box=None, pad_edge=False)
    table.add_column("layers", justify="right")
    for policy, _ in sizes[0].policies:
        table.add_column(f"CPU, {policy}", justify="right")
    table.add_column("NPU")
    for way in sizes[0].ways:
        table.add_column(way.name, justify="right")
        table.add_column("busy", justify="right")
    for times in sizes:
        cpu = (f"{seconds:.3f}" for _, seconds in times.policies)
        ways = (cell for way in times.ways for cell in (f"{way.seconds:.3f}", f"{way.busy_cores(times.threads):.1f}"))
        table.add_row(times.models, str(times.layers), *cpu, times.profile, *ways)
    return table
