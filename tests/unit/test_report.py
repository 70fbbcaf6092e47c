"""The clock's arithmetic, and reports: their contents, their JSON and their tables."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tilewhisper.engine import report
from tilewhisper.engine.commands import tables
from tilewhisper.engine.energy import Energy
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import (
    Clock,
    DecoderReport,
    RunReport,
    SharedClock,
    Stage,
    StageName,
    machine,
    peak_memory_bytes,
    site_report,
)
from tilewhisper.engine.routing.policy import Route
from tilewhisper.engine.routing.router import SiteCount, SitePlan
from tilewhisper.engine.routing.sites import encoder_sites
from tilewhisper.engine.startup import Startup
from tilewhisper.models.audio.facts import AudioLog

SITES = {site.name: site for site in encoder_sites(2, 64, 4, 256)}


@pytest.fixture
def advance(monkeypatch):
    """Replace the wall and CPU clocks by clocks that the returned function moves."""
    now = {"wall": 100.0, "cpu": 10.0}
    monkeypatch.setattr(report.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(report.time, "process_time", lambda: now["cpu"])

    def advance(wall, cpu):
        now["wall"] += wall
        now["cpu"] += cpu

    return advance


def test_a_stage_sums_its_calls_and_keeps_the_first_calls_time(advance):
    clock = Clock()
    for wall, cpu in ((3.0, 5.0), (1.0, 2.0), (0.5, 0.5)):
        with clock("encode"):
            advance(wall, cpu)
        advance(7.0, 7.0)  # outside the stage
    assert clock.stage("encode") == Stage("encode", calls=3, wall_seconds=4.5, cpu_seconds=7.5, first_call_seconds=3.0)


def test_nested_stages_are_counted_independently(advance):
    clock = Clock()
    with clock("total"):
        advance(1.0, 1.0)
        with clock("decode"):
            advance(2.0, 4.0)
    assert (clock.stage("total").wall_seconds, clock.stage("decode").wall_seconds) == (3.0, 2.0)
    assert (clock.stage("total").cpu_seconds, clock.stage("decode").cpu_seconds) == (5.0, 4.0)


def test_a_stage_that_never_ran_is_zero():
    assert Clock().stage("encode") == Stage("encode", 0, 0.0, 0.0, 0.0)


def test_a_stage_that_raises_is_counted(advance):
    clock = Clock()
    with pytest.raises(KeyError), clock("encode"):
        advance(2.0, 1.0)
        raise KeyError
    assert (clock.stage("encode").calls, clock.stage("encode").wall_seconds) == (1, 2.0)


def test_waiting_takes_wall_seconds_but_no_cpu_seconds():
    clock = Clock()
    with clock("asleep"):
        time.sleep(0.2)
    assert clock.stage("asleep").wall_seconds >= 0.2
    assert clock.stage("asleep").cpu_seconds < 0.1


def plan(name: str, reason: str | None = None) -> SitePlan:
    return SitePlan(Route(SITES[name], "bf16", "torch", "layers.* = bf16"), "some.launch", fallback_reason=reason)


def test_a_site_that_ran_on_the_requested_backend():
    count = SiteCount(calls=Counter(bf16=3), seconds=0.5)
    site = site_report(plan("layers.1.fc1"), count)
    assert (site.site, site.requested, site.used, site.calls) == ("layers.1.fc1", "bf16", {"bf16": 3}, 3)
    assert (site.seconds, site.launch, site.rule) == (0.5, "some.launch", "layers.* = bf16")
    assert site.shape == "(1500, 64) x (64, 256)"
    assert site.fallback_reasons == []


def test_a_site_that_fell_back_has_its_reason():
    count = SiteCount(calls=Counter(bf16=2, torch=1), failures=Counter({"the device was lost": 1}))
    site = site_report(plan("layers.0.self_attn.qk"), count)
    assert (site.used, site.calls) == ({"bf16": 2, "torch": 1}, 3)
    assert site.fallback_reasons == ["the device was lost"]
    assert site.shape == "4 x (1500, 16) x (16, 1500)"
    never = site_report(plan("layers.0.fc2", reason="K is too long"), SiteCount(calls=Counter(torch=3)))
    assert never.fallback_reasons == ["K is too long"]


def test_a_site_that_did_not_run():
    site = site_report(plan("layers.0.fc1"), SiteCount())
    assert (site.used, site.calls, site.seconds) == ({}, 0, 0.0)


def a_report(**values) -> RunReport:
    stages = [Stage(name, 1, seconds, seconds, seconds) for name, seconds in (("encode", 1.5), ("decode", 0.5))]
    counts = {"layers.0.fc1": SiteCount(Counter(bf16=1), 0.25), "layers.0.fc2": SiteCount(Counter(torch=1), 0.125)}
    plain = {
        "file": "a.wav", "model": "tiny.en", "weights": "a package", "policy": "cpu",
        "backends": ["torch", "bf16"], "backend_overrides": ["*=bf16"], "language": "en",
        "language_probability": None, "language_no_speech_prob": None, "model_reason": "requested",
        "options": TranscriptionOptions(language="en"), "audio": AudioLog("2 (eng, aac)", 8.0).facts(),
        "audio_seconds": 8.0, "rtf": 0.25,
        "speed": 4.0, "cpu_seconds_per_audio_second": 0.3125, "energy": Energy(12.0, 90.0),
        "startup": Startup(1.0, 0.25, True, 0.5),
        "load": Stage("load", 1, 9.0, 9.0, 9.0), "stages": stages,
        "total": Stage("total", 2, 2.0, 2.5, 1.0), "audio_context": "full", "batch_size": 1, "windows": 1,
            "windows_reencoded": 0, "decoder": DecoderReport("int16", "torch", "no compiler"),
            "tokens": 25, "tokens_per_second": 50.0, "device_read_backs": 0,
        "peak_memory_bytes": 512 * 2**20, "machine": machine(),
        "sites": [site_report(plan(name, "K is too long" if name.endswith("2") else None), count)
                  for name, count in counts.items()],
    }  # fmt: skip
    return RunReport(**(plain | values))


def test_json_holds_every_field():
    content = json.loads(json.dumps(a_report().to_json(), allow_nan=False))
    assert set(content) == set(RunReport.__dataclass_fields__)
    assert content["total"] == {
        "name": "total", "calls": 2, "wall_seconds": 2.0, "cpu_seconds": 2.5, "first_call_seconds": 1.0,
    }  # fmt: skip
    assert content["sites"][0]["used"] == {"bf16": 1}
    assert content["options"]["language"] == "en"
    assert content["machine"]["packages"]["torch"]


def shown(table) -> list[list[str]]:
    """The rows of a rich table."""
    return [list(cells) for cells in zip(*(column.cells for column in table.columns), strict=True)]


def test_the_summary_line_of_no_audio_has_no_rtf_and_speed():
    none = a_report(
        audio_seconds=0.0, rtf=None, speed=None, peak_memory_bytes=None, cpu_seconds_per_audio_second=None,
        energy=Energy(1.0, None),
    )  # fmt: skip
    assert tables.summary_line(none) == "0.0 s of audio in 2.00 s, 50 tokens/s"


def test_the_summary_line_shows_rtf_and_speed():
    assert tables.summary_line(a_report()) == (
        "RTF 0.250, speed 4.0x real time: 8.0 s of audio in 2.00 s, 50 tokens/s, peak 512 MiB, 0.312 CPU s per audio "
        "s, 90 J (whole package) per audio minute"
    )
    without_meter = Energy(None, None, "no meter")
    bare = tables.summary_line(a_report(tokens_per_second=None, peak_memory_bytes=None, energy=without_meter))
    assert bare == "RTF 0.250, speed 4.0x real time: 8.0 s of audio in 2.00 s, 0.312 CPU s per audio s"


def test_the_stage_table_shows_load_below_the_total():
    rows = shown(tables.stage_table(a_report()))
    assert [row[0] for row in rows[:3]] == ["encode", "decode", "total"]
    assert rows[3][0] == "load (not in total)"
    assert rows[3][2] == "9.000"
    assert rows[0] == ["encode", "1", "1.500", "1.500", "1.500"]
    assert rows[2] == ["total", "", "2.000", "2.500", ""]


def test_the_backend_table_shows_requested_and_used_backends_and_the_fallback_reason():
    table = tables.backend_table(a_report())
    headings = [column.header for column in table.columns]
    assert headings == ["requested", "used", "sites", "calls", "wall s", "fallback reason"]
    assert shown(table) == [
        ["bf16", "bf16", "1", "1", "0.250", ""],
        ["bf16", "torch", "1", "1", "0.125", "K is too long"],
        ["int16", "torch", "decoder", "", "0.500", "no compiler"],
    ]


def test_the_device_line_counts_a_joint_launch_once():
    assert tables.device_line(a_report()) is None
    count = SiteCount(Counter(npu=1), device_calls=76, planned_device_calls=76)
    sites = [replace(site_report(plan(name), count), launch="layers.0.*") for name in ("layers.0.fc1", "layers.0.fc2")]
    assert tables.device_line(a_report(sites=sites, device_read_backs=1)) == (
        "device: 76 calls (76 planned), 1 read-back in 1 encode"
    )


def test_the_machine_has_its_processor_threads_and_packages():
    found = machine()
    assert found.threads >= 1
    assert found.cpu
    assert set(found.packages) == set(report.PACKAGES)


@pytest.mark.slow
def test_peak_memory_is_of_this_process_and_not_of_its_parent():
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc; elsewhere peak memory may be the parent's")
    ballast = np.ones(10**8)  # 800 MB
    assert peak_memory_bytes() > ballast.nbytes
    script = "from tilewhisper.engine.report import peak_memory_bytes; print(peak_memory_bytes())"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 50e6 < int(child.stdout) < 700e6


def test_the_stage_table_shows_the_parts_of_the_start_that_are_known():
    rows = {row[0]: row[2] for row in shown(tables.stage_table(a_report()))}
    assert (rows["  weights (mapped)"], rows["  prepare backends"]) == ("0.250", "0.500")
    assert rows["imports (before load)"] == "1.000"
    library = a_report(startup=Startup(None, 2.0, False, 0.5))
    rows = {row[0]: row[2] for row in shown(tables.stage_table(library))}
    assert rows["  weights (read)"] == "2.000"
    assert "imports (before load)" not in rows


def test_a_shared_clock_divides_time_by_stage_and_by_window():
    clock = SharedClock()
    with clock({StageName.PROMPT: 1.0, StageName.DECODE: 0.0}, 1):
        time.sleep(0.001)
    before = clock.reading()
    assert set(before) == {StageName.PROMPT}
    start = time.perf_counter()
    with clock({StageName.PROMPT: 0.25, StageName.DECODE: 0.75}, 2):
        time.sleep(0.01)
    share, elapsed = clock.since(before), time.perf_counter() - start
    assert share[StageName.DECODE].wall == pytest.approx(3 * share[StageName.PROMPT].wall)
    assert 0.01 <= 2 * (share[StageName.DECODE].wall + share[StageName.PROMPT].wall) <= elapsed
