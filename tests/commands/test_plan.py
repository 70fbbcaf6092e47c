"""`tilewhisper plan` from the command line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tilewhisper.engine.commands.main import main
from tilewhisper.engine.routing.sites import encoder_sites
from tilewhisper.engine.tuning import encode_times
from tilewhisper.engine.tuning.cpu_layers import CpuLayer
from tilewhisper.engine.tuning.planning import plan_encoder
from tilewhisper.kernels.base import LayerShape, ProductShape
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.instructions.lowering import stream_of
from tilewhisper.kernels.xdna.instructions.words import encode
from tilewhisper.kernels.xdna.profiles import XDNA1_PROFILE
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import SIZES

CPU = CpuLayer(
    LayerShape(1500, 512, 8, 2048),
    {"torch": 0.09, "int16": 0.03, "w8a8": 0.02},
    without_projections=0.07,
    without_products=0.05,
)
"""One layer on a CPU of the tests: no test depends on a time."""


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(encode_times, "measure", lambda shape: replace(CPU, shape=shape))

    def _run(*arguments: str) -> tuple[int, str, str]:
        status = main(["plan", *arguments])
        return status, *capsys.readouterr()

    return _run


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that starts with `first`."""
    return next(re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.startswith(first + " "))


@pytest.mark.parametrize(
    ("geometry", "calls"), [("seed-64x64", "3,008"), ("seed-64x512", "376"), ("seed-128x512", "192")]
)
def test_the_seeds_product(run, geometry, calls):
    status, out, err = run("--shape", "3001,512,512", "--geometry", geometry, "--device", "seed")
    assert (status, err) == (0, "")
    assert cells(out, "host calls")[1].startswith(f"{calls} = ")
    assert cells(out, "batched")[1].endswith(f"and still {calls} calls")


def test_the_seeds_time_for_one_projection_and_for_its_encoder(run):
    _, out, _ = run("--shape", "3001,512,512", "--geometry", "seed-64x64", "--device", "seed")
    assert cells(out, "time")[1].endswith(": 163.7 s")
    assert cells(out, "seed-64x64")[1:] == ["3,008", "3,008", "163.7 measured", "163.7", "3,928.8", "163.7", "3,928.8"]


@pytest.mark.parametrize("product", [("--shape", "64,64,64"), ("--model", "base")])
def test_a_seed_geometry_shows_the_seeds_claims_beside_the_scaled_times(run, product):
    _, out, _ = run(*product, "--geometry", "seed-128x512", "--device", "seed-scaled")
    assert cells(out, "seed-64x512")[1:] == ["376", "376", "20.4 claimed", "20.5", "491.1", "157.4", "3,777.2"]
    assert cells(out, "seed-128x512")[1:5] == ["188", "192", "10.2 claimed", "10.4"]
    assert "24 blocks of 128" in out
    assert "seed says" not in run(*product)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--geometry", "seed-64x512", "--device", "xdna2-native"),
        ("--geometry", "seed-64x64", "--device", "seed"),
        ("--geometry", "seed-64x64", "--device", "seed-scaled"),
    ],
    ids=" ".join,
)
def test_a_plan_with_the_seed_explains_the_seed(run, arguments):
    _, out, _ = run("--shape", "64,64,64", *arguments)
    assert "The seed is the report this project started from" in out
    assert "54.4 ms a call" in out


def test_a_plan_without_the_seed_does_not_mention_it(run):
    assert "seed" not in run("--shape", "64,64,64")[1]


def test_an_encoder_is_listed_by_role_with_totals(run):
    status, out, err = run("--model", "base")
    assert (status, err) == (0, "")
    assert cells(out, "q_proj")[1:] == [
        "6", "(1500, 512) x (512, 512)", "64x64x32", "2.3%", "1", "12.6", "0.69", "0.79", "host",
    ]  # fmt: skip
    assert cells(out, "qk")[1:3] == ["6", "8 x (1500, 64) x (64, 1500)"]
    assert cells(out, "projections")[1:] == [
        "24", "22%", "24", "302", "1 of 6", "0", "0.017", "0.019", "0.035", "846x",
    ]  # fmt: skip
    assert cells(out, "and qk, av: all")[1:4] == ["48", "100%", "132"]
    assert "22% of the multiply-adds" in out
    assert "67% with fc1 and fc2" in out
    assert "free cores" in out


@pytest.mark.parametrize("device", ["xdna1", "xdna2-native", "xdna2-bfp16"])
@pytest.mark.parametrize("model", SIZES)
def test_every_size_is_planned_on_every_device(run, model, device):
    status, _, err = run("--model", model, "--device", device)
    assert (status, err) == (0, "")


def test_every_figure_is_shown_with_its_source(run):
    _, out, _ = run("--device", "xdna2-bfp16")
    assert cells(out, "DDR to the array")[1:3] == ["42.1 GB/s", "fitted"]
    assert cells(out, "launch")[1:3] == ["0.127 ms", "fitted"]
    assert cells(out, "clock")[1:] == ["1.8 GHz", "derived", "xdna-driver: the highest level"]
    assert "this project measured none of them" in out


def test_shares_totals_and_speed_follow_from_the_sites():
    sites = encoder_sites(layers=2, d_model=512, heads=8, ffn=2048)
    encoder = plan_encoder("two layers", sites, find_geometry("whole-array", XDNA1_PROFILE.device), XDNA1_PROFILE)
    projections, with_ffn, everything = encoder.scopes
    d, rows = 512, 1500
    work = 4 * d * d * rows + 8 * d * d * rows + 2 * rows * rows * d
    assert projections.share == pytest.approx(4 * d * d * rows / work)
    assert with_ffn.share == pytest.approx(12 * d * d * rows / work)
    assert everything.share == 1
    # Per layer: to K = 64, to 1536, back to 512, to 2048, back to 512 of the next layer or window.
    assert (everything.switches, with_ffn.switches, projections.switches) == (2 * 5, 2 * 2, 0)
    alone = sum(site.product.cost.device for site in encoder.sites)
    assert everything.cost.device == pytest.approx(alone + 10 * 4 * 0.351e-3)
    assert everything.speed == pytest.approx(30 / everything.cost.seconds)
    assert [len(scope.sites) for scope in encoder.scopes] == [8, 12, 16]


def test_the_plan_as_json_has_every_site_and_every_figure(run, tmp_path):
    file = tmp_path / "plan.json"
    status, _, _ = run("--model", "large-v3", "--device", "xdna2-native", "--json", str(file))
    data = json.loads(file.read_text())
    assert status == 0
    assert len(data["sites"]) == 32 * 8
    assert data["sites"][3]["site"] == "layers.0.self_attn.qk"
    assert data["sites"][3]["calls"] == 20
    assert data["totals"][-1]["speed_limit"] == pytest.approx(30 / data["totals"][-1]["seconds"]["total"])
    assert {figure["basis"] for figure in data["figures"]} == {"measured", "fitted", "derived"}
    assert (data["device"], data["geometry"]["columns"], data["prediction"]) == ("xdna2-native", 8, True)
    assert "seed" not in data
    run("--shape", "3001,512,512", "--geometry", "seed-128x512", "--device", "seed", "--json", str(file))
    data = json.loads(file.read_text())
    assert (data["calls"], data["seed"][2]["calls"], data["seed"][2]["claim"]["calls"]) == (192, 192, 188)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--geometry", "seed-64x65"), "unknown geometry 'seed-64x65' (did you mean 'seed-64x64'?)"),
        (("--device", "xdna3"), "unknown device 'xdna3'"),
        (("--device", "xdna2"), "device xdna2 has several cost profiles, choose one of them (xdna2-native: "),
        (("--threads", "-1"), "--threads must be >= 0, got -1"),
        (("--sizes", "--geometry", "whole-array"), "--geometry is for one model or product, not for --sizes"),
        (("--published", "--stream"), "--stream is for one model or product, not for --published"),
        (("--published", "--device", "seed"), "--published is for whole arrays, not for profile seed; the profiles"),
        (("--published", "--json", "/no/such/folder/x.json"), "there is no folder /no/such/folder"),
        (("--model", "bse"), "unknown model 'bse'"),
        (("--shape", ""), "cannot read --shape '': expected three whole numbers M,K,N"),
        (("--shape", "1,2"), "cannot read --shape '1,2'"),
        (("--shape", "0,1,2"), "cannot read --shape '0,1,2'"),
        (("--shape", "-1,1,2"), "cannot read --shape '-1,1,2'"),
        (("--shape", "1.5,1,2"), "cannot read --shape '1.5,1,2'"),
        (("--shape", "²,1,2"), "cannot read --shape '²,1,2'"),
        (("--shape", "1500,512,51865"), "whole-array on xdna1 cannot take (1500, 512) x (512, 51865): moving A"),
        (("--device", "seed"), "profile seed times host calls of one tile"),
        (("--json", "/no/such/folder/x.json"), "there is no folder /no/such/folder"),
    ],
)
def test_an_invalid_plan_is_one_clear_error_line(run, arguments, complaint):
    status, out, err = run(*arguments) if arguments[0] != "--shape" else run(f"--shape={arguments[1]}")
    assert (status, out) == (2, "")
    assert err.startswith("tilewhisper: error: ")
    assert complaint in err
    assert err.count("\n") == 1


SHAPE = ("--shape", "1500,512,512")


def built(tmp_path, m: int = 1500, device=XDNA1) -> Path:
    """The file that a compiler would write for a product of this project."""
    cut = plan(ProductShape(1, m, 512, 512), find_geometry("whole-array", device), device)
    file = tmp_path / "insts_1536x512.bin"
    file.write_bytes(encode(stream_of(cut)).tobytes())
    return file


def test_the_stream_of_a_product_is_printed(run, tmp_path):
    status, out, err = run(*SHAPE, "--stream")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "xdna1, 4 columns x 6 rows: 192 operations, 7,408 bytes"
    assert len(lines) == 193
    assert lines[6] == "  5  column 0, MM2S 0: push descriptor 1, 4 times"
    assert run(*SHAPE, "--stream", str(built(tmp_path))) == (0, out, "")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"m": 1000}, "operation 124 is 'column 0, S2MM 0: wait for a token', and the design has"),
        ({"device": XDNA2}, "it is for xdna2, 8 columns x 6 rows, and the design for xdna1, 4 columns x 6 rows"),
    ],
    ids=["M", "device"],
)
def test_a_built_stream_of_another_design_is_one_clear_error_line(run, tmp_path, other, reason):
    file = built(tmp_path, **other)
    status, out, err = run(*SHAPE, "--stream", str(file))
    assert (status, out) == (2, "")
    assert f"{file} is not the instruction stream of (1536, 512) x (512, 512) on xdna1: {reason}" in err
    assert err.endswith("; run scripts/build_kernels.py --device xdna1\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--stream",), "--stream shows the stream of one product: add --shape M,K,N"),
        ((*SHAPE, "--stream", "/no/such/file.bin"), "/no/such/file.bin: No such file or directory"),
        ((*SHAPE, "--stream", __file__), "is not the instruction stream of"),
    ],
)
def test_a_stream_that_cannot_be_shown(run, arguments, complaint):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("other", [("--shape", "1,2,3"), ("--sizes",), ("--published",)], ids=" ".join)
def test_a_model_excludes_everything_else(run, other):
    with pytest.raises(SystemExit) as stopped:
        run("--model", "base", *other)
    assert stopped.value.code == 2


def test_published_times_are_printed_beside_their_predictions(run):
    status, out, err = run("--published")
    assert (status, err) == (0, "")
    product = next(re.split(r"\s{2,}", line) for line in out.splitlines() if "1536, 5120, 1280" in line)
    assert product[4:9] == ["4", "1,514 GFLOP/s", "13.3", "12.43", "0.93"]
    assert cells(out, "xdna1, all")[1:3] == ["6", "2"]
    assert cells(out, "all")[1:3] == ["58", "7"]
    assert "a claim: no sizes and no design" in out
    assert "No source times a product of the whole array with native bf16" in out


def test_published_times_of_one_profile_as_json(run, tmp_path):
    file = tmp_path / "published.json"
    status, out, _ = run("--published", "--device", "xdna1", "--json", str(file))
    assert status == 0
    assert "xdna2" not in out
    data = json.loads(file.read_text())
    assert {row["profile"] for row in data["published"]} == {"xdna1"}
    for row in data["published"]:
        assert row["ratio"] == pytest.approx(row["predicted_seconds"] / row["seconds"])
    assert [entry["name"] for entry in data["errors"]] == ["xdna1, fitted", "xdna1, held out", "xdna1, all"]
    assert {row["claim"] for row in data["not_comparable"]} == {True, False}


def test_all_sizes_beside_this_machines_cpu(run, tmp_path):
    file = tmp_path / "sizes.json"
    status, out, err = run("--sizes", "--json", str(file))
    assert (status, err) == (0, "")
    rows = json.loads(file.read_text())["sizes"]
    models = ["tiny", "base", "small", "medium", "large-v1, large-v2, large-v3, large-v3-turbo"]
    assert [row["models"] for row in rows[::3]] == models
    assert [row["profile"] for row in rows[:3]] == ["xdna1", "xdna2-native", "xdna2-bfp16"]
    assert rows[0]["policies"] == {"cpu": pytest.approx(4 * 0.03), "int8": pytest.approx(0.03 + 3 * 0.02)}
    assert rows[-1]["ways"][0]["rest"] == pytest.approx(32 * 0.07)
    for row in rows:
        assert f"{row['models']} on {row['profile']}: {row['verdict']}." in out


def test_a_model_is_compared_with_this_machines_cpu(run):
    _, out, _ = run("--model", "base")
    projections = cells(out, "NPU: projections")
    assert projections[1:5] == ["npu", "24", "0", "24"]
    assert projections[7:9] == ["0.420", "0.455"], "what is left to the CPU, and the sum"
    assert cells(out, "this machine's CPU")[1:] == ["cpu", "0.180", "0.180", cells(out, "this machine's CPU")[-1]]
    layers = cells(out, "NPU: whole layers")
    # A layer has 7 launches, two for each of 8 heads, and changes its design 9 times.
    assert layers[1:5] == ["npu-layer", str(6 * (7 + 2 * 8)), str(6 * 9), "1"]
    assert layers[7] == "0.000", "nothing is left to the CPU"
    assert re.search(r"^base on xdna1: the CPU is faster: 0\.\d+ s on the NPU \(whole layers\), 0\.180 s by", out, re.M)
    assert "with random weights, measured now" in out
    assert "1,151 against 1,016 ms" in out
