"""`scripts/scale.py`: from measured figures to cores, time, cost and the first bottleneck."""

import argparse
import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

# A machine that takes 36 s of two threads for an hour of audio, in rows of 10 s.
MEASURED = SimpleNamespace(
    core_seconds=0.02,
    threads=2,
    worker_mb=1000.0,
    audio_bytes_per_second=16_000.0,
    row_bytes=1000.0,
    row_audio_seconds=10.0,
    rows_per_second=1000.0,
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("scale")


@pytest.fixture
def plan(script):
    def of(**given):
        options = {"hours": 10_000.0, "cores": 64, "price": 0.05, "storage": 500.0, "network": 1250.0}
        return script.plan(MEASURED, argparse.Namespace(**{**options, **given}))

    return of


def test_the_calculation_is_the_one_by_hand(plan):
    found = plan()
    assert found.core_hours == pytest.approx(200.0)
    assert found.hours == pytest.approx(3.125)
    assert found.cost == pytest.approx(10.0)
    assert found.memory_gb == pytest.approx(32.0)  # 32 workers of 2 threads
    assert (found.rows, found.output_gb) == (pytest.approx(3.6e6), pytest.approx(3.6))
    # 3,200 s of audio a second: 51.2 MB/s, and 320 rows
    assert found.shares["the storage"] == pytest.approx(0.1024)
    assert found.shares["the process that writes the rows"] == pytest.approx(0.32)
    assert found.bottleneck == "the cores"


def test_another_resource_may_be_the_bottleneck(plan):
    assert plan(storage=20.0).bottleneck == "the storage"
    assert plan(cores=64 * 4).bottleneck == "the process that writes the rows"


def test_memory_that_grows_is_told_from_memory_that_varies(script):
    def found(sizes):
        measured = script.Measured(1, 1, 1, 2, max(sizes), script.quarters(sizes), 1, 1, 1, 1)
        return script.in_quarters(measured)

    assert found([600, 640, 600, 610, 650, 612, 615, 690, 615, 400, 612, 300]) == "600, 612, 615, 400 MB: flat"
    assert found(range(600, 700)) == "612, 637, 662, 687 MB: grows by 75 MB"
