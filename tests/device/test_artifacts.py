"""Built designs on disk: a matching design is found, and every other design is rejected with the reason."""

import json
from pathlib import Path

import pytest

from tilewhisper.kernels.base import BackendUnavailable, ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.artifacts import find
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.container import unpack
from tilewhisper.kernels.xdna.emulated.program import program_of
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.sequence import encode, runtime_sequence
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan


def cut(m: int, k: int, n: int, name: str = "whole-array", device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry(name, device), device)


PLAN = cut(1500, 384, 384)
QKV = cut(1500, 384, 1152)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build([PLAN, QKV], tmp_path)
    return tmp_path


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "xdna1_4x4_k384_64x64x32_bf16_f32"


def refusal(root: Path, required: TilePlan = PLAN, **options) -> str:
    with pytest.raises(BackendUnavailable) as error:
        find(root, required, **options)
    text = str(error.value)
    assert "\n" not in text
    assert f"run scripts/build_kernels.py --device {required.device.name}" in text
    return text


def test_one_design_serves_two_launches(root, folder):
    assert [path.name for path in root.iterdir()] == [folder.name] == [PLAN.design.name]
    for p, file in ((PLAN, "insts_1536x384.bin"), (QKV, "insts_1536x1152.bin")):
        found = find(root, p, target="emulated")
        assert found.instructions == folder / file
        assert found.instructions.read_bytes() == encode(runtime_sequence(p)).tobytes()
        assert found.instruction_count == found.instructions.stat().st_size
    binary = unpack(found.xclbin.read_bytes())
    assert (binary.kernel, binary.program) == ("MLIR_AIE", program_of(PLAN))
    manifest = found.manifest
    assert (manifest.design, manifest.kernel, manifest.target) == (PLAN.design, "MLIR_AIE", "emulated")
    assert manifest.launches == {"1536x384": "insts_1536x384.bin", "1536x1152": "insts_1536x1152.bin"}
    assert "tilewhisper" in manifest.tools


def test_older_tools_count_instructions_in_words(tmp_path):
    artifacts.write(
        tmp_path, PLAN.design, b"x", {"1536x384": bytes(40)}, target="hardware", tools={}, instruction_unit="words"
    )
    assert find(tmp_path, PLAN).instruction_count == 10


def test_an_empty_folder(tmp_path):
    assert "no design has been built" in refusal(tmp_path)
    assert "no design has been built" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("required", "why"),
    [
        (cut(1500, 512, 512), "built for K = 384, not 512"),
        (cut(64, 384, 64, "seed-64x512"), "built for 4x4 cores, not 1x1"),
    ],
    ids=["K", "cores"],
)
def test_the_nearest_design_and_its_difference(root, required, why):
    assert why in refusal(root, required)


def test_another_device(root):
    geometry = Geometry("same", "", ("xdna2",), 4, 4, (Tile(64, 64, 32),))
    required = plan(ProductShape(1, 1500, 384, 384), geometry, XDNA2)
    assert "built for XDNA1, this is XDNA2" in refusal(root, required)


def test_another_core_tile(root):
    geometry = Geometry("other", "", ("xdna1",), 4, 4, (Tile(32, 64, 32),))
    required = plan(ProductShape(1, 1500, 384, 384), geometry, XDNA1)
    assert "core tiles of 64x64x32, not 32x64x32" in refusal(root, required)


def test_a_folder_with_a_wrong_name(root, folder):
    required = cut(1500, 512, 512)
    folder.rename(root / required.design.name)
    assert "built for K = 384, not 512" in refusal(root, required)


def test_other_dtypes(root, folder):
    text = (folder / "manifest.json").read_text().replace('"dtype_out": "f32"', '"dtype_out": "bf16"')
    (folder / "manifest.json").write_text(text)
    assert "built for bf16 -> bf16, not bf16 -> f32" in refusal(root)


def test_a_launch_that_was_not_built(root):
    assert "no instruction stream for M x N = 1536x512 (available: 1536x384, 1536x1152)" in refusal(
        root, cut(1500, 384, 512)
    )


def test_an_emulated_design_is_rejected_for_hardware(root):
    assert "built for the emulated device, this is a real device" in refusal(root, target="hardware")


@pytest.mark.parametrize("name", ["design.xclbin", "insts_1536x384.bin", "insts_1536x1152.bin"])
def test_damaged_files(folder, root, name):
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{name} is truncated: {len(whole) - 1:,} bytes of {len(whole):,}" in refusal(root)
    path.write_bytes(whole + b"0")
    assert f"{name} is too long" in refusal(root)
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert f"{name} was changed after the build" in refusal(root)
    path.unlink()
    assert f"{name} is missing" in refusal(root)
    path.write_bytes(whole)
    find(root, PLAN)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 3, "design": 3}'],
    ids=["empty", "truncated", "a list", "no fields", "wrong type"],
)
def test_an_invalid_manifest(root, folder, content):
    (folder / "manifest.json").write_text(content)
    assert "is not a manifest" in refusal(root)


@pytest.mark.parametrize("number", [2, 4], ids=["older", "newer"])
def test_a_manifest_of_another_format(number, root, folder):
    text = (folder / "manifest.json").read_text().replace('"format": 3', f'"format": {number}')
    (folder / "manifest.json").write_text(text)
    assert f"has format {number}, and this version of tilewhisper reads 3" in refusal(root)


def test_a_missing_manifest(root, folder):
    (folder / "manifest.json").unlink()
    assert "cannot be read" in refusal(root)


def test_a_manifest_cannot_refer_outside_its_folder(root, folder):
    data = json.loads((folder / "manifest.json").read_text())
    data["launches"]["1536x384"] = "../elsewhere.bin"
    (folder / "manifest.json").write_text(json.dumps(data))
    assert "is not a manifest" in refusal(root)


def test_a_file_without_a_hash(root, folder):
    data = json.loads((folder / "manifest.json").read_text())
    data["files"] = [file for file in data["files"] if file["name"] != "design.xclbin"]
    (folder / "manifest.json").write_text(json.dumps(data))
    assert "no SHA-256 of design.xclbin" in refusal(root)


def test_the_emulated_datapath_supports_only_bf16(tmp_path):
    geometry = Geometry("int8", "", ("xdna1",), 4, 4, (Tile(64, 64, 32),), dtype_in="int8", dtype_out="int32")
    with pytest.raises(UnsupportedShape, match="int8 -> int32"):
        build([plan(ProductShape(1, 256, 64, 128), geometry, XDNA1)], tmp_path)
