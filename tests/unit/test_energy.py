"""Package energy, read from folders laid out like Linux's powercap interface."""

import os

import pytest

from tilewhisper.engine.energy import Energy, EnergyMeter


def package(folder, number, microjoules, limit=1_000_000_000, name="package"):
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir(exist_ok=True)
    (zone / "name").write_text(f"{name}-{number}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{limit}\n")
    return zone


def test_the_energy_of_all_packages_is_added_up(tmp_path):
    package(tmp_path, 0, 5_000_000)
    package(tmp_path, 1, 0)
    package(tmp_path, 2, 0, name="dram")  # counted by its package on some machines, and not a package
    meter = EnergyMeter(tmp_path)
    package(tmp_path, 0, 7_500_000)
    package(tmp_path, 1, 1_000_000)
    package(tmp_path, 2, 9_000_000, name="dram")
    assert meter.joules() == pytest.approx(3.5)
    package(tmp_path, 1, 2_000_000)
    assert Energy.of(meter, 30) == Energy(pytest.approx(4.5), pytest.approx(9.0), None)


def test_a_counter_that_starts_again_goes_on(tmp_path):
    package(tmp_path, 0, 9_000_000, limit=10_000_000)
    meter = EnergyMeter(tmp_path)
    package(tmp_path, 0, 1_500_000, limit=10_000_000)
    assert meter.joules() == pytest.approx(2.5)


def test_without_audio_there_is_no_rate(tmp_path):
    package(tmp_path, 0, 0)
    assert Energy.of(EnergyMeter(tmp_path), 0) == Energy(0.0, None, None)


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_machine_without_a_meter_says_so(tmp_path, folder):
    meter = EnergyMeter(tmp_path / folder)
    energy = Energy.of(meter, 60)
    assert (energy.joules, energy.joules_per_audio_minute) == (None, None)
    assert energy.reason is not None and "no meter of a processor package" in energy.reason


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_meter_for_root_alone_says_how_to_open_it(tmp_path):
    (package(tmp_path, 0, 0) / "energy_uj").chmod(0)
    assert "sudo chmod a+r" in str(EnergyMeter(tmp_path).reason)


def test_a_meter_that_goes_away_gives_its_reason(tmp_path):
    zone = package(tmp_path, 0, 0)
    meter = EnergyMeter(tmp_path)
    (zone / "energy_uj").write_text("broken")
    assert meter.joules() is None
    assert "cannot be read" in str(meter.reason)
