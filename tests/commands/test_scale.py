"""scripts/scale.py: from measured figures to cores, time, cost and the first bottleneck."""

import argparse

import pytest
import scale

MEASURED = scale.Measured(
    audio_seconds=3600.0,
    seconds=36.0,
    together_seconds=36.0,
    threads=2,
    worker_mb=1000.0,
    growth_mb=0.0,
    audio_bytes_per_second=16_000.0,
    row_bytes=1000.0,
    row_audio_seconds=10.0,
    rows_per_second=1000.0,
)


def plan(**given: float) -> scale.Plan:
    options = {"hours": 10_000.0, "cores": 64, "price": 0.05, "storage": 500.0, "network": 1250.0}
    return scale.plan(MEASURED, argparse.Namespace(**{**options, **given}))


def test_the_calculation_is_the_one_by_hand():
    found = plan()
    assert found.core_hours == pytest.approx(200.0)  # an hour of audio takes two cores for 36 s
    assert found.hours == pytest.approx(3.125)
    assert found.cost == pytest.approx(10.0)
    assert found.memory_gb == pytest.approx(32.0)  # 32 workers of 2 threads
    assert (found.rows, found.output_gb) == (pytest.approx(3.6e6), pytest.approx(3.6))
    # 3,200 s of audio a second: 51.2 MB/s, and 320 rows
    assert found.shares["the storage"] == pytest.approx(0.1024)
    assert found.shares["the process that writes the rows"] == pytest.approx(0.32)
    assert found.bottleneck == "the cores"


def test_another_resource_may_be_the_bottleneck():
    assert plan(storage=20.0).bottleneck == "the storage"
    assert plan(cores=64 * 4).bottleneck == "the process that writes the rows"
