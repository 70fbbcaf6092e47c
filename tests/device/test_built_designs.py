"""Designs for a real device: their instruction stream is decoded and compared before anything is sent."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilewhisper.kernels.base import BackendUnavailable, ProductShape, Settings
from tilewhisper.kernels.xdna import artifacts, backend, built_designs
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.instructions.lowering import Choices, stream_of
from tilewhisper.kernels.xdna.instructions.words import encode
from tilewhisper.kernels.xdna.sequence import encode as encode_for_emulation
from tilewhisper.kernels.xdna.sequence import runtime_sequence
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan


def cut(m: int, k: int, n: int, device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry("whole-array", device), device)


PLAN = cut(1500, 384, 384)
STREAM = encode(stream_of(PLAN)).tobytes()


def build(root: Path, stream: bytes) -> None:
    """A design whose manifest fits the plan, with this stream."""
    artifacts.write(root, PLAN.design, b"binary", {PLAN.title: stream}, target="hardware", tools={})


def refusal(root: Path) -> str:
    with pytest.raises(BackendUnavailable) as error:
        built_designs.find(root, PLAN)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith("; run scripts/build_kernels.py --device xdna1")
    return text


@pytest.mark.parametrize("stream", [STREAM, encode(stream_of(PLAN, Choices(ax_cache=3))).tobytes()])
def test_a_design_with_its_own_stream_is_found(tmp_path, stream):
    build(tmp_path, stream)
    assert built_designs.find(tmp_path, PLAN).instructions.read_bytes() == stream


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (encode(stream_of(cut(1500, 384, 1152))).tobytes(), "operation 0 (column 0, shim tile, descriptor 0) has"),
        (encode(stream_of(cut(1500, 384, 384, XDNA2))).tobytes(), "it is for xdna2, 8 columns"),
        (encode_for_emulation(runtime_sequence(PLAN)).tobytes(), "the header has version"),
        (STREAM[:-4], "the header states"),
        (b"", "an instruction stream has at least 4 words"),
    ],
    ids=["another N", "another device", "the emulated device's", "truncated", "empty"],
)
def test_a_design_with_another_stream_is_refused(tmp_path, stream, reason):
    build(tmp_path, stream)
    text = refusal(tmp_path)
    assert f"insts_1536x384.bin is not the instruction stream of (1536, 384) x (384, 384) on xdna1: {reason}" in text


def test_the_backend_of_a_real_device_compares_the_stream(tmp_path, monkeypatch):
    """The device is a stand-in that has only a name: the design is refused before anything is loaded."""
    monkeypatch.setattr(backend.xrt, "import_module", lambda: None)
    monkeypatch.setattr(backend.xrt, "open_device", lambda module: SimpleNamespace(name="NPU Phoenix"))
    stream = stream_of(PLAN)
    build(tmp_path, encode(replace(stream, operations=stream.operations[:-1])).tobytes())
    npu = backend.XdnaBackend.create(Settings(npu="auto", npu_kernels=str(tmp_path)))
    with pytest.raises(BackendUnavailable, match="it ends before the design's operation 'column 3, S2MM 0: wait"):
        npu._design(PLAN)
