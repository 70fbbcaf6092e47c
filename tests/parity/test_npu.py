"""Real speech with the encoder on the emulated NPU, through the command: the text, the report, and failures."""

import json
from typing import Any

import pytest
from conftest import require_weights

from tilewhisper.engine.commands.main import main
from tilewhisper.engine.routing.modules import apply_policy
from tilewhisper.engine.routing.policy import Policy, Rule
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import LayerShape, ProductShape, Settings
from tilewhisper.kernels.xdna.emulated import device
from tilewhisper.kernels.xdna.geometries import XDNA1, find_geometry
from tilewhisper.kernels.xdna.layer_plan import plan_layer
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint import loader

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
WITH_FALLBACK = """
default = "torch"
[[rule]]
sites = "layers.*.self_attn.*_proj"
backend = "npu"
fallback = "torch"
"""
# Runs of one window of tiny.en under policy `npu`: a canary and q,k,v of layer 0; a canary and out; then two a layer.
# So layer 2 starts with run 7; a design is rebuilt once, and its second try is run 8.
HANG_IN_LAYER_2 = "hang:7,8"
# Under policy `npu-layer`: 19 runs of a check, and 19 a layer. Layer 2 starts with run 58, and its qkv is run 59.
HANG_IN_WHOLE_LAYER_2 = "hang:59,60"


@pytest.fixture
def transcribe(shared, tmp_path, capsys):
    """The command on jfk.flac: status, text, standard error, and the run's report."""

    def run(*options: str):
        file = tmp_path / "report.json"
        common = ["--model", require_weights("tiny.en"), "--beam_size", "1", "--report", str(file)]
        status = main(["transcribe", str(shared / "jfk.flac"), *common, *options])
        captured = capsys.readouterr()
        runs = json.loads(file.read_text())["runs"] if file.exists() else []
        return status, captured.out, captured.err, runs[0] if runs else None

    return run


@pytest.fixture
def numpys_cores(monkeypatch):
    """Emulated cores that take a fifth of the micro-kernels' time, for tests of what surrounds them."""
    monkeypatch.setattr(device, "_available_cores", lambda: "numpy")


def planned_calls(sites: dict, leaf: str, n: int) -> int:
    """The planner's number of calls for one launch of layer 0."""
    site = sites[f"layers.0.self_attn.{leaf}"]
    m, k = (int(number) for number in site["shape"].split(")")[0].strip("(").split(","))
    return plan(ProductShape(1, m, k, n), find_geometry("whole-array", XDNA1), XDNA1).calls


def test_every_projection_runs_on_the_emulated_npu_with_the_same_text(transcribe):
    _, expected, _, _ = transcribe("--policy", "torch")
    status, text, err, report = transcribe("--policy", "npu", "--npu", "emulated")
    assert status == 0
    assert text == expected
    assert "npu (emulated)" in err
    sites = {site["site"]: site for site in report["sites"]}
    for name, site in sites.items():
        on_npu = name.rpartition(".")[2] in PROJECTIONS
        assert site["requested"] == ("npu" if on_npu else "torch")
        assert site["used"] == ({"npu (emulated)": 1} if on_npu else {"torch": 1})
    launches = {site["launch"]: site["device_calls"] for site in sites.values()}
    assert launches["layers.0.self_attn.{q_proj,k_proj,v_proj}"] == planned_calls(sites, "q_proj", 3 * 384)
    assert launches["layers.0.self_attn.out_proj"] == planned_calls(sites, "out_proj", 384)
    assert sum(launches.values()) == 2 * 4
    assert all(0 < s["device_seconds"] < s["seconds"] for s in sites.values() if s["requested"] == "npu")


@pytest.mark.usefixtures("numpys_cores")
def test_all_products_of_the_layers_can_run_on_the_emulated_npu(transcribe):
    _, expected, _, _ = transcribe("--policy", "torch")
    status, text, _, report = transcribe("--policy", "npu-full", "--npu", "emulated")
    assert (status, text) == (0, expected)
    for site in report["sites"]:
        assert site["used"] == ({"torch": 1} if site["site"].startswith("conv") else {"npu (emulated)": 1})


def test_whole_layers_stay_on_the_emulated_npu_with_one_read_back(transcribe):
    _, expected, _, _ = transcribe("--policy", "torch")
    status, text, err, report = transcribe("--policy", "npu-layer", "--npu", "emulated")
    assert (status, text) == (0, expected)
    planned = plan_layer(LayerShape(1500, 384, 6, 1536), XDNA1).calls
    launches = {}
    for site in report["sites"]:
        if site["site"].startswith("conv"):
            assert site["used"] == {"torch": 1}
            continue
        assert (site["requested"], site["used"]) == ("npu-layer", {"npu-layer (emulated)": 1})
        launches[site["launch"]] = (site["device_calls"], site["planned_device_calls"])
    assert launches == {f"layers.{i}.*": (planned, planned) for i in range(4)}
    assert (report["windows"], report["device_read_backs"]) == (1, 1)
    assert f"device: {4 * planned} calls ({4 * planned} planned), 1 read-back in 1 encode" in err


@pytest.mark.usefixtures("numpys_cores")
def test_a_hang_inside_a_whole_layer_goes_to_the_stated_fallback(transcribe, tmp_path):
    policy = tmp_path / "with-fallback.toml"
    policy.write_text(WITH_FALLBACK.replace(".self_attn.*_proj", ".*").replace('"npu"', '"npu-layer"'))
    _, expected, _, _ = transcribe("--policy", "torch")
    arguments = ("--policy", str(policy), "--npu", "emulated", "--npu_fault", HANG_IN_WHOLE_LAYER_2)
    status, text, err, report = transcribe(*arguments)
    assert (status, text) == (0, expected)
    used = {site["site"]: site["used"] for site in report["sites"] if site["requested"] == "npu-layer"}
    assert {name.split(".")[1]: tuple(backends) for name, backends in used.items()} == {
        "0": ("npu-layer (emulated)",), "1": ("npu-layer (emulated)",), "2": ("torch",), "3": ("torch",)
    }  # fmt: skip
    assert report["device_read_backs"] == 1  # of layer 1's result, for the fallback
    assert "did not answer" in err


@pytest.mark.usefixtures("numpys_cores")
def test_a_hang_inside_a_whole_layer_without_a_fallback_is_one_clear_line(transcribe):
    arguments = ("--policy", "npu-layer", "--npu", "emulated", "--npu_fault", HANG_IN_WHOLE_LAYER_2)
    status, text, err, report = transcribe(*arguments)
    assert (status, text, report) == (2, "", None)
    (line,) = err.splitlines()
    assert line.startswith("tilewhisper: error: layers.2.* failed on 'npu-layer': ")
    assert "no fallback" in line


def test_a_hang_goes_to_the_stated_fallback_and_the_report_names_calls_and_reason(transcribe, tmp_path):
    policy = tmp_path / "with-fallback.toml"
    policy.write_text(WITH_FALLBACK)
    _, expected, _, _ = transcribe("--policy", "torch")
    status, text, err, report = transcribe("--policy", str(policy), "--npu", "emulated", "--npu_fault", HANG_IN_LAYER_2)
    assert (status, text) == (0, expected)
    used = {site["site"]: site["used"] for site in report["sites"] if site["requested"] == "npu"}
    fell_back = {name for name, backends in used.items() if backends == {"torch": 1}}
    assert fell_back == {f"layers.{i}.self_attn.{leaf}" for i in (2, 3) for leaf in PROJECTIONS}
    assert all(used[name] == {"npu (emulated)": 1} for name in used if name not in fell_back)
    reasons = {r for site in report["sites"] if site["site"] in fell_back for r in site["fallback_reasons"]}
    assert reasons
    assert all("did not answer within 10000 ms" in reason for reason in reasons)
    assert "did not answer" in err


def test_a_hang_without_a_fallback_is_one_clear_line(transcribe):
    status, text, err, report = transcribe("--policy", "npu", "--npu", "emulated", "--npu_fault", HANG_IN_LAYER_2)
    assert (status, text, report) == (2, "", None)
    (line,) = err.splitlines()
    assert line.startswith("tilewhisper: error: ")
    assert "layers.2.self_attn.{q_proj,k_proj,v_proj} failed on 'npu'" in line
    assert "no fallback" in line


def test_nothing_is_emulated_unless_requested(transcribe):
    """Only on a machine without an NPU."""
    if registry.backend_class("npu").why_unavailable(Settings()) is None:
        pytest.skip("there is a real NPU here")
    status, _, err, report = transcribe("--policy", "npu")
    assert (status, report) == (2, None)
    assert "cannot run here" in err


def test_closing_the_router_frees_the_device():
    backends = []

    def create(name: str):
        backends.append(registry.create(name, Settings(npu="emulated")))
        return backends[-1]

    model = loader.load(require_weights("tiny.en")).model
    policy = Policy("one", "torch", (Rule("layers.0.fc1", "npu"),))
    routed = apply_policy(model, policy, lambda name: create(name) if name == "npu" else registry.create(name))
    backend: Any = backends[0]
    machine = backend._xrt.pyxrt.emulation
    assert machine.contexts_open == 1
    routed.router.close()
    apply_policy(model, Policy("torch", "torch"))
    assert machine.contexts_open == 0
