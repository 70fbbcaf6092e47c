"""`scripts/build_kernels.py` from the command line: without the tools, and with stand-ins for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tilewhisper.kernels.base import BackendUnavailable, ProductShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.geometries import find_geometry
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
    assert "not compiled: aiecc.py is not on PATH" in line
    assert "mlir_aie and llvm-aie (Peano)" in line
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
        (("--device", "xdna3"), "xdna3"),
        (("--device", "xdna1", "--geometry", "all-of-it"), "all-of-it"),
    ],
)
def test_bad_input(arguments, reason, tmp_path):
    done = build(*arguments, "-o", tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def tool(file, body):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\narguments = sys.argv[1:]\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def stand_ins(tmp_path):
    """The wheels' folders, with programs that accept the real arguments and write placeholder files."""
    wheel, peano = tmp_path / "mlir_aie", tmp_path / "llvm-aie"
    (wheel / "include" / "aie_kernels" / "aie2").mkdir(parents=True)
    (wheel / "include" / "aie_kernels" / "aie2" / "mm.cc").touch()
    tool(
        peano / "bin" / "clang++",
        "assert Path(arguments[arguments.index('-c') + 1]).is_file()\n"
        "Path(arguments[arguments.index('-o') + 1]).write_bytes(b'object')",
    )
    tool(
        wheel / "bin" / "aiecc.py",
        "named = dict(a.lstrip('-').split('=', 1) for a in arguments if '=' in a)\n"
        "assert Path('mm_64x64x32.o').is_file() and Path(arguments[-1]).is_file()\n"
        "Path(named['xclbin-name']).write_bytes(b'binary')\n"
        "Path(named['npu-insts-name']).write_bytes(Path(arguments[-1]).name.encode())",
    )
    return wheel, peano


def test_the_backend_finds_compiled_designs(stand_ins, tmp_path):
    wheel, peano = stand_ins
    done = build(*SEED, "--compile", "--peano", peano, "-o", tmp_path / "out", path=wheel / "bin")
    assert done.returncode == 0, done.stderr
    cut = plan(ProductShape(1, 1500, 384, 384), find_geometry("seed-64x64", XDNA1), XDNA1)
    artifact = artifacts.find(tmp_path / "out", cut, target="hardware")
    assert artifact.instructions.read_bytes() == b"design_64x64.mlir"
    assert artifact.manifest.tools["mlir_aie"] == "unknown"


def test_a_second_model_keeps_the_launches_of_the_first(stand_ins, tmp_path):
    wheel, peano = stand_ins
    common = ("--device", "xdna1", "--peano", peano, "-o", tmp_path / "out", "--policy-sites", "all")
    for model in ("tiny.en", "base"):
        done = build(*common, "--model", model, path=wheel / "bin")
        assert done.returncode == 0, done.stderr
    for n in (64, 384):  # av of both, fc2 of tiny.en
        cut = plan(ProductShape(1, 1500, 1536, n), find_geometry("whole-array", XDNA1), XDNA1)
        assert artifacts.find(tmp_path / "out", cut, target="hardware")


def test_a_failing_compiler_leaves_no_manifest(stand_ins, tmp_path):
    wheel, peano = stand_ins
    tool(wheel / "bin" / "aiecc.py", "sys.exit('no route')")
    done = build(*SEED, "--peano", peano, "-o", tmp_path / "out", path=wheel / "bin")
    assert done.returncode == 2
    assert "no route" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").rglob(artifacts.MANIFEST))
