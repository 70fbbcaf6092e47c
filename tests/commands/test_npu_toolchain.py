"""`scripts/build_kernels.py --compile` with stand-ins for the toolchain of each generation, whole and broken."""

import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import npu_stand_ins
import pytest
from npu_stand_ins import FLAGS, PARTNERS, add_wrapper, install, object_file, program

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.tiling import plan

pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")

SEED = ("--device", "xdna1", "--geometry", "seed-64x64", "--model", "tiny.en", "--compile")
LAUNCH = plan(ProductShape(1, 1500, 384, 384), find_geometry("seed-64x64", XDNA1), XDNA1)


@pytest.fixture
def build(monkeypatch, tmp_path, capsys):
    """Run the script in this process with a toolchain, or none, on PATH: (exit status, lines of standard error)."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    script = importlib.import_module("build_kernels")
    for name in ("AIE_XCLBINUTIL", "PEANO_INSTALL_DIR", "MLIR_AIE_INSTALL_DIR", "XRT_ROOT", "XILINX_XRT"):
        monkeypatch.delenv(name, raising=False)

    def run(tools, *arguments):
        monkeypatch.setenv("PATH", tools.path if tools else os.devnull)
        status = script.main([*SEED, "-o", str(tmp_path / "out"), *map(str, arguments)])
        return status, capsys.readouterr().err.splitlines()

    return run


def refused(finished):
    """The only error, which is on one line."""
    status, lines = finished
    assert status == 2
    (line,) = [line for line in lines if line.startswith("build_kernels: error: ")]
    assert not [line for line in lines if not line.startswith("build_kernels: ")]
    return line


@pytest.mark.parametrize("windows", [False, True], ids=["linux", "windows"])
@pytest.mark.parametrize("release", FLAGS)
def test_every_generation_compiles(release, windows, build, tmp_path):
    status, lines = build(install(tmp_path, release, windows=windows))
    assert status == 0, lines
    assert not [line for line in lines if "pair" in line and release != "1.4.6.dev2"]
    artifact = artifacts.find(tmp_path / "out", LAUNCH, target="hardware")
    assert artifact.instructions.read_bytes() == b"design_64x64.mlir"
    assert artifact.manifest.tools["mlir_aie"] == release
    assert artifact.manifest.tools["llvm-aie"] == PARTNERS[release]


@pytest.mark.parametrize("beside", [True, False], ids=["beside aiecc", "alone"])
def test_the_wrapper_of_1_3_compiles(beside, build, tmp_path):
    tools = install(tmp_path, "1.3.4", version="")
    add_wrapper(tools)
    if not beside:  # in the wheel's own folder of programs
        tools.driver.rename(tools.packages / "mlir_aie" / "bin" / "aiecc")
    status, lines = build(tools)
    assert status == 0, lines


def test_a_driver_built_from_sources_is_recognised_by_its_date(build, tmp_path):
    status, lines = build(install(tmp_path, "1.4.6.dev2", version=""))
    assert status == 0, lines
    assert any("mlir_aie unknown with llvm-aie" in line for line in lines)


@pytest.mark.parametrize("version", ["", "1.1.2", "0.0.1.2025010100+abc"])
def test_an_unknown_driver_is_refused_with_the_way_to_continue(version, build, tmp_path):
    tools = install(tmp_path, "1.4.0", version=version)
    line = refused(build(tools))
    assert "is of no known generation" in line
    assert "one of 1.3, 1.4.0, 1.4.1, 1.4.3, give it with --generation" in line
    assert build(tools, "--generation", "1.4.0")[0] == 0


@pytest.mark.parametrize(
    ("release", "chosen", "cause"),
    [
        ("1.3.4", "1.4.1", "Unknown command line argument '--get-xclbin'"),
        ("1.4.0", "1.3", "Unknown command line argument '--no-compile-host'"),
        ("1.4.0", "1.4.1", "chess-llvm-link failed"),
        ("1.4.2", "1.4.0", "Unknown command line argument '--no-xchesscc'"),
        ("1.4.4.dev18", "1.4.1", "x.mlir:9:9: error: unregistered operation 'aie.objectfifo.subview.access'"),
    ],
)
def test_a_wrong_generation_is_explained_and_the_log_is_named(release, chosen, cause, build, tmp_path):
    line = refused(build(install(tmp_path, release), "--generation", chosen))
    assert re.search(f"aiecc failed: (aiecc: )?{re.escape(cause)}", line), line
    assert "give " in line and "--generation" in line
    log = Path(line.rpartition("the full log is ")[2])
    assert log.name == "design_64x64.log"
    assert log.read_text().startswith("$ ") and "To reproduce" in log.read_text()
    assert not list(tmp_path.rglob(artifacts.MANIFEST))


@pytest.mark.parametrize("windows", [False, True], ids=["linux", "windows"])
@pytest.mark.parametrize(
    ("helper", "reason", "remedy"),
    [
        ("driver", "neither aiecc nor aiecc.py is on PATH", "pip install mlir_aie=="),
        ("clang", "there is no Peano compiler", "--peano"),
        ("xclbinutil", "there is no xclbinutil", "libxrt-utils-npu"),
        ("bootgen", "there is no bootgen", "pip install mlir_aie=="),
    ],
)
def test_a_missing_helper_is_named_before_anything_is_compiled(helper, reason, remedy, windows, build, tmp_path):
    tools = install(tmp_path, "1.4.0", windows=windows)
    getattr(tools, helper).unlink()
    line = refused(build(tools))
    assert reason in line and remedy in line
    assert not list((tmp_path / "out").rglob("*.log"))


def test_a_wheel_without_headers_is_refused(build, tmp_path):
    tools = install(tmp_path, "1.4.0")
    (tools.packages / "mlir_aie" / "include").rename(tmp_path / "elsewhere")
    assert "there is no include/aie_api" in refused(build(tools))


def test_helpers_are_found_where_the_environment_says(build, tmp_path, monkeypatch):
    tools = install(tmp_path, "1.4.2")
    monkeypatch.setenv("AIE_XCLBINUTIL", str(tools.xclbinutil.rename(tmp_path / "packer")))
    monkeypatch.setenv("PEANO_INSTALL_DIR", str((tools.packages / "llvm-aie").rename(tmp_path / "peano")))
    assert build(tools)[0] == 0
    monkeypatch.setenv("AIE_XCLBINUTIL", str(tmp_path / "nothing"))
    assert "AIE_XCLBINUTIL is" in refused(build(tools))
    monkeypatch.delenv("AIE_XCLBINUTIL")
    monkeypatch.setenv("XRT_ROOT", str(tmp_path / "XRT"))
    (tmp_path / "packer").rename(tools.xclbinutil)
    monkeypatch.setattr(npu_stand_ins.Toolchain, "path", property(lambda tools: str(tools.driver.parent)))
    assert build(tools)[0] == 0


@pytest.mark.parametrize(
    ("tool", "output", "cause"),
    [
        ("clang", "aie.hpp:3:10: fatal error: 'adf.h' file not found\n1 error generated.", "'adf.h' file not found"),
        ("clang", "aie.hpp:9:1: error: no type\naie.hpp:9:2: error: other\n2 errors generated.", "9:1: error: no type"),
        ("driver", "x\nerror: core stack_size 1024 is below the measured stack 2048\nbye", "measured stack 2048"),
        ("driver", "unregistered operation 'aie.objectfifo.subview.access'\nbye", "has other operations than"),
        ("driver", "", "no output, exit status 3"),
    ],
)  # fmt: skip
def test_the_cause_of_a_failure_is_shown_and_not_the_last_line(tool, output, cause, build, tmp_path):
    tools = install(tmp_path, "1.4.2")
    program(getattr(tools, tool), f"print({output!r}, file=sys.stderr)\nsys.exit(3)")
    line = refused(build(tools))
    assert cause in line and "bye" not in line and "generated" not in line
    log = Path(line.rpartition("the full log is ")[2])
    assert output in log.read_text()


def test_success_without_the_file_is_a_failure(build, tmp_path):
    tools = install(tmp_path, "1.4.2")
    assert build(tools)[0] == 0
    program(tools.driver, "print('done')")
    assert "aiecc reported success and wrote no design.xclbin" in refused(build(tools))


def test_a_kernel_with_a_larger_stack_than_planned_is_refused(build, tmp_path):
    line = refused(build(install(tmp_path, "1.4.2", stack=3329)))
    assert "the kernel zero_f32.cc needs 3,329 bytes of stack and the design reserves 3,328" in line
    assert not list(tmp_path.rglob(artifacts.MANIFEST))


def test_an_unknown_stack_is_a_warning(build, tmp_path):
    status, lines = build(install(tmp_path, "1.4.2", stack=None))
    assert status == 0
    assert [line for line in lines if "does not state its stack, which is not checked" in line]


@pytest.mark.parametrize("bits", [32, 64])
def test_the_largest_frame_of_an_object_file(bits, build):
    largest_frame = importlib.import_module("npu_toolchain.stack_sizes").largest_frame
    whole = object_file([0, 70_000, 128], bits)
    assert largest_frame(whole) == 70_000
    assert largest_frame(object_file([], bits)) is None
    for damaged in (whole[:60], whole[:-100], b"", b"object"):
        assert largest_frame(damaged) is None


@pytest.mark.skipif(not shutil.which("gcc"), reason="the assembler gcc is not installed")
def test_the_largest_frame_of_an_assembled_file(build, tmp_path):
    source = '.text\nf: nop\n.section .stack_sizes,"o",@progbits,.text\n.quad f\n.uleb128 3330\n.quad f\n.byte 8\n'
    (tmp_path / "f.s").write_text(source)
    subprocess.run(["gcc", "-c", "f.s", "-o", "f.o"], cwd=tmp_path, check=True)
    assert importlib.import_module("npu_toolchain.stack_sizes").largest_frame((tmp_path / "f.o").read_bytes()) == 3330


def test_another_pair_is_a_warning_with_the_command_that_installs_its_partner(build, tmp_path):
    status, lines = build(install(tmp_path, "1.4.0", partner="22.0.0.2026092401+6dc4d6dd"))
    assert status == 0
    (line,) = [line for line in lines if "pair" in line]
    assert line.startswith("build_kernels: warning: mlir_aie 1.4.0 with llvm-aie 22.0.0.2026092401+6dc4d6dd is not")
    assert line.endswith(
        "pip install mlir_aie==1.4.0 llvm-aie==21.0.0.2026062301+cb664e8c "
        "-f https://github.com/Xilinx/mlir-aie/releases/expanded_assets/v1.4.0 "
        "-f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly"
    )


def test_pyxrt_of_another_python_is_a_warning(build, tmp_path, monkeypatch):
    (tmp_path / "pyxrt.cpython-39-x86_64-linux-gnu.so").touch()
    monkeypatch.syspath_prepend(tmp_path)
    status, lines = build(install(tmp_path, "1.4.0"))
    assert status == 0
    (line,) = [line for line in lines if "pyxrt" in line]
    assert "cannot" not in line and "is for Python 3.9 and this is" in line


def test_the_stand_ins_accept_the_flags_of_the_sources(shared):
    facts = json.loads((shared / "npu" / "aiecc_cli.json").read_text("utf-8"))
    calls = {name: [part.partition("=")[0] for part in call["argv"][1:-1]] for name, call in
             facts["minimal_call"].items() if isinstance(call, dict)}  # fmt: skip
    assert {release: sorted(flags) for release, flags in FLAGS.items()} == {
        release: sorted(calls[name]) for release, name in zip(FLAGS, ("1.3.4", "1.4.0", *["1.4.1+"] * 3), strict=True)
    }


def test_the_pairs_are_those_of_the_sources(build, shared):
    pairs = importlib.import_module("npu_toolchain.pairs").PAIRS
    facts = json.loads((shared / "npu" / "versions.json").read_text("utf-8"))
    published = {
        (pair["mlir_aie"], pair["llvm_aie"])
        for pair in facts["pairs"]
        if pair["llvm_aie"][0].isdigit() and pair["mlir_aie"][0].isdigit()
    }
    assert {(pair.mlir_aie, pair.llvm_aie) for pair in pairs} == published


def test_a_stand_in_refuses_flags_of_another_release(tmp_path):
    """So the tests above depend on the flags."""
    tools = install(tmp_path, "1.4.2")
    done = subprocess.run([tools.driver, "--no-xchesscc", "x.mlir"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Unknown command line argument '--no-xchesscc'" in done.stderr
