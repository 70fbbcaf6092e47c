"""`scripts/build_kernels.py` as a program, mostly without the tools; test_npu_toolchain.py has them."""

import subprocess
import sys
from pathlib import Path

import pytest
from npu_stand_ins import install

from tilewhisper.kernels.base import BackendUnavailable, LayerShape, ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.layer_plan import plan_layer
from tilewhisper.kernels.xdna.tiling import plan

pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")

pytestmark = pytest.mark.slow  # each test starts an interpreter and checks designs: 2 to 18 s

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_kernels.py"


def build(*arguments, path="/nowhere"):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {"PATH": str(path), "OMP_NUM_THREADS": "1", "HOME": "/nowhere"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


SEED = ("--device", "xdna1", "--geometry", "seed-64x64", "--model", "tiny.en")


def test_without_tools_it_writes_and_checks_and_names_what_to_install(tmp_path):
    done = build("--device", "xdna1", "--model", "tiny.en", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {
        f"xdna1_4x4_k{k}_64x64x32_bf16_f32/design_1536x{n}.mlir"
        for k, n in ((384, 384), (384, 1152), (384, 1536), (1536, 384))
    }
    assert "4 files, 2 designs" in done.stdout
    assert "compiled" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert "not compiled: neither aiecc nor aiecc.py is on PATH" in line
    assert "pip install mlir_aie==" in line
    cut = plan(ProductShape(1, 1500, 384, 384), find_geometry("whole-array", XDNA1), XDNA1)
    with pytest.raises(BackendUnavailable):
        artifacts.find(tmp_path, cut)


def test_compile_without_tools_is_an_error(tmp_path):
    done = build(*SEED, "--compile", "-o", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("build_kernels: error: not compiled: ")


def test_policy_sites_all_adds_the_products_of_the_attention(tmp_path):
    done = build("--device", "xdna1", "--model", "tiny.en", "--policy-sites", "all", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "xdna1_4x4_k64_64x64x32_bf16_f32" / "design_1536x1536.mlir").is_file()
    assert (tmp_path / "xdna1_4x4_k1536_64x64x32_bf16_f32" / "design_1536x128.mlir").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--device", "xdna1", "--model", "no-such-model"), "no-such-model"),
        (("--device", "xdna3"), "unknown device 'xdna3' (did you mean 'xdna2'?); the devices are xdna1, xdna2, NPU"),
        (("--device", "NPU Gorgon"), "did you mean 'NPU Gorgon Point 3'?"),
        (("--device", "xdna1", "--geometry", "all-of-it"), "all-of-it"),
    ],
)
def test_bad_input(arguments, reason, tmp_path):
    done = build(*arguments, "-o", tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_second_model_keeps_the_launches_of_the_first(tmp_path):
    tools = install(tmp_path, "1.4.2")
    common = ("--device", "xdna1", "-o", tmp_path / "out", "--policy-sites", "all")
    for model in ("tiny.en", "base"):
        done = build(*common, "--model", model, path=tools.path)
        assert done.returncode == 0, done.stderr
    for n in (64, 384):  # av of both, fc2 of tiny.en
        cut = plan(ProductShape(1, 1500, 1536, n), find_geometry("whole-array", XDNA1), XDNA1)
        assert artifacts.find(tmp_path / "out", cut, target="hardware")


def test_the_designs_of_whole_layers_are_compiled_and_found(tmp_path):
    tools = install(tmp_path, "1.4.2")
    where = ("-o", tmp_path / "out")
    done = build("--device", "xdna1", "--model", "tiny.en", "--policy-sites", "layers", *where, path=tools.path)
    assert done.returncode == 0, done.stderr
    assert "18 files, 6 designs" in done.stdout
    steps = plan_layer(LayerShape(1500, 384, 6, 1536), XDNA1).steps
    found = [artifacts.find(tmp_path / "out", each, target="hardware") for step in steps for each in step.launches]
    assert len({artifact.instructions for artifact in found}) == 18
    objects = {file.name for file in (tmp_path / "out").rglob("*.o")}
    assert {"softmax_1536.o", "add_norm_384.o", "finish_bf16_64x64x32.o", "round_bf16_64x64x16.o"} <= objects
    other = plan_layer(LayerShape(1500, 512, 8, 2048), XDNA1).steps[0].launches[0]
    with pytest.raises(BackendUnavailable, match=r"build_kernels\.py --device xdna1 --policy-sites layers"):
        artifacts.find(tmp_path / "out", other)


def test_the_pairs_are_printed_with_their_commands():
    done = build("--pairs")
    assert done.returncode == 0, done.stderr
    assert (
        "pip install mlir_aie==1.4.4.dev3+gf50bef7 llvm-aie==22.0.0.2026090701+3e93bf7b "
        "-f https://github.com/Xilinx/mlir-aie/releases/expanded_assets/latest-wheels-4 "
        "-f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly\n"
        "    Python 3.11, 3.12, 3.13, 3.14; XRT 2.21.75; source: "
    ) in done.stdout


def test_the_designs_of_npu_check(tmp_path):
    done = build("--device", "xdna1", "--check", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 files, 5 designs" in done.stdout
    for step in ("one core", "one column", "whole array", "chained MLP"):
        assert f"npu-check: {step}" in " ".join(done.stdout.split())
