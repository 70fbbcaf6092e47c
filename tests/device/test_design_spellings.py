"""Designs in the spelling of each release: operations, properties, enumerations and limits of mlir-aie's sources."""

import json
import re
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from every_design import ALL, LAYERS, cut

from tilewhisper.kernels.xdna.array import DTYPE_BYTES
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.reader import DesignError, read
from tilewhisper.kernels.xdna.designs.spellings import SPELLINGS
from tilewhisper.kernels.xdna.designs.structure import MicroKernels
from tilewhisper.kernels.xdna.devices import XDNA1

pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")

EVERYTHING = (*ALL, *LAYERS)
SMALL = cut(XDNA1, "whole-array", 1500, 128, 256)
RELEASES = {"1.3": "1.3.4", "1.4.3": "main"}
"""Spelling -> the release whose operations are listed in ../shared."""
OTHER_NAMES = {
    "func.func": "func.func (external kernel)",
    "scf.for": "scf.for / arith.constant",
    "arith.constant": "scf.for / arith.constant",
}
UPSTREAM = {"builtin.module", "scf.yield"}


def operations(text):
    """(name, properties by name, rest of the line) of each operation; `generate` writes each on a line of its own."""
    for line in text.splitlines():
        if found := re.search(r'"([a-z]\w*\.[\w.]+)"\((.*?)\) ?(?:<\{(.*)\}>)?(.*)', line):
            name, _, properties, rest = found.groups()
            yield name, dict(part.split(" = ", 1) for part in split(properties or "")), rest


def split(properties):
    """At the commas outside brackets."""
    depth, start = 0, 0
    for i, letter in enumerate(properties):
        depth += (letter in "<[({") - (letter in ">])}" and properties[i - 1] != "-")
        if letter == "," and depth == 0:
            yield properties[start:i].strip()
            start = i + 1
    if properties:
        yield properties[start:].strip()


def integers(text):
    return [int(number) for number in re.findall(r"-?\d+", re.sub(r"[if](8|16|32|64)\b", "", text))]


def directions(one):
    return {operand.name: operand.direction for operand in one.design.operands}


@pytest.fixture(scope="module")
def facts(shared):
    return json.loads((shared / "npu" / "mlir_aie_ops.json").read_text("utf-8"))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_design_has_only_operations_and_properties_of_the_release(spelling, facts):
    for one in EVERYTHING:
        for name, properties, _ in operations(mlir.generate(one, spelling=SPELLINGS[spelling])):
            if name in UPSTREAM:
                continue
            listed = facts["ops"][OTHER_NAMES.get(name, name)][RELEASES[spelling]]
            assert not listed.get("absent"), name
            known = listed["properties"] | ({"value": {"required": True}} if name == "arith.constant" else {})
            assert properties.keys() <= known.keys(), (name, properties)
            required = {key for key, value in known.items() if value["required"]}
            assert name == "scf.for" or required <= properties.keys(), (name, properties)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_enumerations_and_types_are_those_of_the_release(spelling, facts):
    enums = facts["enums"]
    for one in EVERYTHING:
        text = mlir.generate(one, spelling=SPELLINGS[spelling])
        views = facts["types"]["!aie.objectfifosubview<memref<...>>"][RELEASES[spelling]]
        assert ("objectfifosubview" in text) <= views
        for name, properties, rest in operations(text):
            if name == "aie.device":
                device = {"xdna1": "npu1", "xdna2": "npu2"}[one.device.name]
                assert properties["device"] == f"{enums['AIEDevice'][device]} : i32"
            elif name in ("aie.objectfifo.acquire", "aie.objectfifo.release"):
                operand = properties["objFifo_name"].strip("@").partition("_")[0]
                port = "Produce" if directions(one)[operand] == "from array" else "Consume"
                assert properties["port"] == f"{enums['ObjectFifoPort'][port]} : i32"
            elif name == "aie.core":
                assert properties == {"stack_size": "3328 : i32"}, rest


def test_transfers_and_layouts_are_inside_the_limits(facts):
    """Of the static verifier before main too, which refuses sizes from 513."""
    shim, memory = facts["limits"]["shim tile"], facts["limits"]["memory tile"]
    for one in EVERYTHING:
        for name, properties, _ in operations(mlir.generate(one)):
            if name == "aie.objectfifo" and (layout := integers(properties["dimensionsToStream"])):
                sizes, strides = layout[::2], layout[1::2]
                assert len(sizes) <= memory["dimensions"]
                assert max(sizes) <= 512 and max(strides) <= memory["step_max_words"]
            elif name == "aiex.npu.dma_memcpy_nd":
                operand = properties["metadata"].strip("@").partition("_")[0]
                (dtype_bytes,) = (DTYPE_BYTES[o.dtype] for o in one.design.operands if o.name == operand)
                offsets, sizes, strides = (integers(properties[f"static_{p}"]) for p in ("offsets", "sizes", "strides"))
                assert len(offsets) == len(sizes) == len(strides) == shim["dimensions"] + 1
                assert strides[-1] == 1 and min(sizes) > 0
                assert sizes[3] * dtype_bytes // 4 <= shim["size_max"] and sizes[2] <= shim["size_max"]
                assert sizes[0] <= shim["iteration_max"]
                walked = [stride for size, stride in zip(sizes, strides, strict=True) if size > 1]
                assert max(walked) * dtype_bytes // 4 <= shim["step_max_words"]
                moved = sum(offset * stride for offset, stride in zip(offsets, strides, strict=True)) * dtype_bytes
                assert moved % 4 == 0
                assert integers(properties["id"])[0] < shim["bds"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_both_spellings_pass_the_check_and_describe_the_same_design(spelling):
    kernels = MicroKernels(PurePosixPath("/a b/größe"))
    text = mlir.generate(SMALL, kernels, SPELLINGS[spelling])
    mlir.check(text)
    assert read(text) == read(mlir.generate(SMALL, kernels))
    assert ("subview" in text) == (spelling == "1.3")
    functions = {f.name: f.object_file for f in read(text).structure.functions}
    assert functions == {
        "zero_f32": "/a b/größe/zero_f32_64x64x32.o",
        "matmul_bf16_f32": "/a b/größe/matmul_bf16_f32_64x64x32.o",
    }


@pytest.mark.parametrize(
    ("folder", "written"),
    [
        (PureWindowsPath(r"C:\Users\A B\kernels"), "C:/Users/A B/kernels"),
        (PureWindowsPath(r"\\server\share"), "//server/share"),
        (PurePosixPath('/a "b" \\c'), '/a "b" \\c'),
    ],
)
def test_object_files_have_absolute_paths_of_any_system(folder, written):
    text = mlir.generate(SMALL, MicroKernels(folder))
    mlir.check(text)
    assert {f.object_file for f in read(text).structure.functions} == {
        f"{written}/{name}_64x64x32.o" for name in ("zero_f32", "matmul_bf16_f32")
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace('"/k/zero', '"zero'), "'zero_f32_64x64x32.o' of @zero_f32 must have an absolute path"),
        (lambda t: t.replace('"/k/matmul', '"/other/matmul', 1), "has object_file"),
        (lambda t: re.sub(r' \{link_with = ".*?"\}', "", t, count=1), "link_with"),
        (lambda t: t.replace("<{stack_size", '<{link_with = "/k/zero_f32_64x64x32.o", stack_size', 1), "xDSL rejects"),
        (lambda t: t.replace(", size = 1 : i32}> : () -> !aie", "}> : () -> !aie", 1), "size"),
        (lambda t: t.replace("stack_size = 3328", "stack_size = 1024", 1), "has stack_bytes 1024"),
    ],
)  # fmt: skip
def test_an_error_in_what_the_releases_need_is_detected(change, reason):
    text = mlir.generate(SMALL, MicroKernels(PurePosixPath("/k")))
    changed = change(text)
    assert changed != text
    with pytest.raises(DesignError, match=re.escape(reason)):
        mlir.check(changed)
