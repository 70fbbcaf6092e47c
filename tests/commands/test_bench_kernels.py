"""`scripts/bench_kernels.py`: the results of a small product, and of a backend with a wrong result."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.bf16 import Bf16Backend
from tilewhisper.models.checkpoint.catalog import SIZES

SMALL = ("--shape", "5,32,48", "--rounds", "2", "--threads", "1")


@pytest.fixture
def script(monkeypatch):
    """The script as a module, as on a machine without a compiler: native kernels and peaks would take seconds."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    monkeypatch.setattr(build, "why_unavailable", lambda: "no compiler")
    threads = torch.get_num_threads()
    yield importlib.import_module("bench_kernels")
    torch.set_num_threads(threads)


def bench(script, tmp_path, *arguments):
    file = tmp_path / "kernels.json"
    assert script.main([*SMALL, "--json", str(file), *arguments]) == 0
    return json.loads(file.read_text())


def test_every_available_backend_is_checked_and_timed(script, tmp_path, capsys):
    result = bench(script, tmp_path)
    rows = {row["backend"]: row for row in result["rows"]}
    assert list(rows)[:3] == ["torch", "torch int8", "bf16"]
    assert result["left_out"]["int16"] == result["left_out"]["int8"] == "no compiler"
    assert rows["torch"]["error"] < 1e-6 < 1e-4 < rows["bf16"]["error"] < rows["torch int8"]["error"] < 5e-2
    for row in rows.values():
        assert len(row["seconds"]) == 2
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["gops"] == pytest.approx(2 * 5 * 32 * 48 / row["median_ms"] / 1e6)
        assert row["ratio"] == pytest.approx(rows["torch"]["median_ms"] / row["median_ms"])
        assert row["of_peak"] is None and row["of_floor"] is None
    assert rows["torch"]["bytes"] == 4 * (5 * 32 + 32 * 48 + 5 * 48)
    assert rows["torch int8"]["bytes"] == 4 * (5 * 32 + 5 * 48) + 32 * 48
    assert "peak of multiply-adds: unknown; memory read bandwidth: unknown" in capsys.readouterr().out


def test_a_wrong_backend_is_reported_and_not_timed(script, tmp_path, monkeypatch, capsys):
    calls = []

    def without_bias(self, x, prepared):
        calls.append(x)
        return F.linear(x, prepared.weight)

    monkeypatch.setattr(Bf16Backend, "linear", without_bias)
    result = bench(script, tmp_path, "--backend", "bf16")
    (row,) = (row for row in result["rows"] if row["backend"] == "bf16")
    assert row["why_not"] == "wrong: error above 0.01"
    assert row["error"] > 0.1
    assert row["seconds"] == [] and "gops" not in row
    assert len(calls) == 1  # the check
    assert "wrong: error above 0.01" in capsys.readouterr().out


def test_the_sets_of_a_backend_are_compared_with_the_last(script, monkeypatch, tmp_path, capsys):
    monkeypatch.undo()  # with the native kernels
    if reason := build.why_unavailable():
        pytest.skip(reason)
    best = build.instruction_sets()[0]
    sets = ["--set", best, "--set", "portable"]
    result = bench(script, tmp_path, "--backend", "w8a8", "--backend", "bf16", *sets)
    rows = {row["backend"]: row for row in result["rows"]}
    assert list(rows) == ["torch", "torch int8", f"w8a8 {best}", "w8a8 portable", "bf16"]
    assert rows[f"w8a8 {best}"]["error"] == pytest.approx(rows["w8a8 portable"]["error"], rel=1e-4)
    ratio = rows["w8a8 portable"]["min_ms"] / rows[f"w8a8 {best}"]["min_ms"]
    assert f"w8a8 {best} is {ratio:.2f} times as fast as w8a8 portable, with" in capsys.readouterr().out


def test_a_set_that_this_processor_lacks_is_refused_with_the_reason(script, monkeypatch, capsys):
    monkeypatch.undo()
    if reason := build.why_unavailable():
        pytest.skip(reason)
    monkeypatch.setattr(
        build, "why_not_sets", lambda: {"avx_vnni": "this processor does not have avx_vnni", "avx2": ""}
    )
    assert script.main([*SMALL, "--set", "avx_vnni"]) == 2
    assert "--set avx_vnni cannot be used: this processor does not have avx_vnni" in capsys.readouterr().err


def test_the_shape_table_has_each_product_once(script):
    cases = script.shape_table([SIZES["tiny"], SIZES["base"], SIZES["tiny.en"]])
    shapes = {(case.role, case.shape): case for case in cases}
    assert len(shapes) == len(cases)
    assert shapes["fc1", ProductShape(1, 1500, 512, 2048)].sizes == ("base",)
    assert shapes["qkv", ProductShape(1, 1500, 384, 1152)].sizes == ("tiny", "tiny.en")
    assert shapes["conv1", ProductShape(1, 3000, 240, 512)].stride == 1
    assert shapes["conv2", ProductShape(1, 1500, 1536, 512)].stride == 2
    assert shapes["attention", ProductShape(8, 1500, 64, 1500)].operations == 4 * 8 * 1500 * 1500 * 64
    assert shapes["lm_head", ProductShape(1, 1, 512, 51865)].bytes(1) == 4 * (512 + 51865) + 512 * 51865


def test_the_picture_is_written(script, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib: pip install 'tilewhisper[bench]'")
    file = tmp_path / "roofline.png"
    bench(script, tmp_path, "--backend", "bf16", "--picture", str(file))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "kernel_bench.roofline", raising=False)
    assert script.main([*SMALL, "--picture", str(tmp_path / "roofline.png")]) == 2
    assert capsys.readouterr().err.endswith("needs matplotlib: pip install 'tilewhisper[bench]'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "huge"), "unknown Whisper size 'huge'"),
        (("--backend", "int3"), "unknown backend 'int3'"),
        (("--rounds", "0"), "--rounds must be >= 1, got 0"),
    ],
)
def test_bad_input_is_refused(script, arguments, message, capsys):
    assert script.main([*SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err
