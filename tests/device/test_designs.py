"""Generated MLIR passes the check, the check detects errors, and a text that is read back computes the product."""

import builtins
import re

import numpy as np
import pytest
from every_design import ALL, cut

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.check import read_plan
from tilewhisper.kernels.xdna.designs.reader import DesignError, read
from tilewhisper.kernels.xdna.designs.structure import Fifo
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice
from tilewhisper.kernels.xdna.emulated.program import Layout, ProductProgram
from tilewhisper.kernels.xdna.sequence import Wait, encode
from tilewhisper.models.checkpoint.catalog import SIZES

pytestmark = pytest.mark.slow  # xDSL needs 0.5 to 3 s to parse and verify one design

pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")


def test_there_is_a_design_for_every_size_and_device():
    whole = [one for one in ALL if one.geometry.name == "whole-array"]
    for device in DEVICES:
        depths = {one.launch.k for one in whole if one.device.name == device}
        assert depths >= {f * size.d_model for size in SIZES.values() for f in (1, 4)}


@pytest.mark.parametrize("one", ALL, ids=lambda p: f"{p.device.name}-{p.geometry.name}-{p.launch}")
def test_every_design_of_every_size_passes(one):
    mlir.check(mlir.generate(one))


@pytest.fixture(scope="module")
def texts():
    """(plan, text, the text read) of a small product on one core, a square array, and more columns than rows."""
    plans = (
        cut(XDNA1, "seed-64x64", 64, 64, 64),
        cut(XDNA1, "whole-array", 1500, 128, 256),
        cut(XDNA2, "whole-array", 700, 128, 384),
    )
    return [(one, text, read(text)) for one, text in ((one, mlir.generate(one)) for one in plans)]


def test_the_plan_can_be_read_from_a_text(texts):
    for one, _, design in texts:
        found = read_plan(design)
        assert (found.design, found.launch) == (one.design, one.launch)


def computed(design, a, b):
    """The product by the emulated device, from the design that was read only."""
    fifos = {fifo.name: fifo for fifo in design.structure.fifos}

    def layout(name):
        sizes, strides = zip(*fifos[name].to_stream, strict=True)
        return Layout(sizes, strides)

    shape = read_plan(design)
    device = DEVICES[design.structure.device]
    program = ProductProgram(
        shape.design,
        device.micro_kernels["bf16"].tile,
        layout("A_row_0"),
        layout("B_column_0"),
        layout("C_shim_0"),
    )
    c = np.zeros((a.shape[0], b.shape[1]), np.float32)
    stream = encode(design.sequence).tobytes()
    bits = [(x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in (a, b)]
    EmulatedDevice(device).execute(
        program,
        stream,
        bits[0].view(np.uint8).reshape(-1),
        bits[1].view(np.uint8).reshape(-1),
        c.view(np.uint8).ravel(),
    )
    return c


def whole_numbers(one):
    """Operands of small signed integers: exact in bf16, and their sums in float32."""
    draw = np.random.default_rng(0).integers
    launch = one.launch
    return draw(-8, 8, (launch.m, launch.k)).astype(np.float64), draw(-8, 8, (launch.k, launch.n)).astype(np.float64)


def test_the_text_read_back_computes_the_product(texts):
    for one, _, design in texts:
        a, b = whole_numbers(one)
        np.testing.assert_array_equal(computed(design, a, b), a @ b)


def test_a_wrong_layout_in_the_text_gives_a_wrong_product(texts):
    """So the test above depends on the text."""
    one, text, _ = texts[1]
    a, b = whole_numbers(one)
    walk = ("<size = 8, stride = 8>", "<size = 4, stride = 64>")
    wrong = text.replace(", ".join(walk), ", ".join(reversed(walk)))
    assert wrong != text
    assert not np.array_equal(computed(read(wrong), a, b), a @ b)


def first(pattern, replacement, text):
    """The first match in the runtime sequence."""
    start = text.index("aie.runtime_sequence")
    found, count = re.subn(pattern, replacement, text[start:], count=1)
    assert count == 1, pattern
    return text[:start] + found


def without(name, text):
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if f'sym_name = "{name}"' not in line)


def swap(old, new, count=1):
    def change(text):
        assert old in text, old
        return text.replace(old, new, count)

    return change


MUTATIONS = {
    "a stride": lambda t: first(r"static_strides = array<i64: 0, 64", "static_strides = array<i64: 0, 32", t),
    "a repeat's stride": lambda t: first(r"static_strides = array<i64: 0,", "static_strides = array<i64: 1,", t),
    "a size": lambda t: first(r"static_sizes = array<i64: 2, 2, 64", "static_sizes = array<i64: 2, 2, 60", t),
    "an offset": lambda t: first(r"(static_offsets = array<i64: 0, 0, 0), 32>", r"\1, 64>", t),
    "an offset beyond the end": lambda t: first(r"(static_offsets = array<i64: 0, 0, 0), 32>", r"\1, 99999999>", t),
    "a missing FIFO": lambda t: without("B_shim_1", t),
    "a missing FIFO of a core": lambda t: without("A_row_2", t),
    "a core's type": swap("-> memref<64x32xf32>", "-> memref<32x64xf32>"),
    "a FIFO's type": swap("!aie.objectfifo<memref<64x64xbf16>>", "!aie.objectfifo<memref<64x64xf32>>"),
    "a function's type": swap("(memref<64x64xbf16>, memref", "(memref<64x32xbf16>, memref"),
    "a callee": swap("@zero_f32", "@zero_bf16"),
    "an id reused": lambda t: first(r"id = 1 : i64", "id = 0 : i64", t),
    "an id too high": lambda t: first(r"id = 1 : i64", "id = 16 : i64", t),
    "a wait missing": lambda t: first(r' *"aiex.npu.dma_wait".*\n', "", t),
    "a wait for another column": lambda t: first(r"symbol = @C_shim_1", "symbol = @C_shim_0", t),
    "a transfer through another column": lambda t: first(r"metadata = @B_shim_1", "metadata = @B_shim_2", t),
    "A sent as B": lambda t: first(r"metadata = @A_shim_1", "metadata = @B_shim_1", t),
    "no token": lambda t: first(r"issue_token = true", "issue_token = false", t),
    "a layout": swap("<size = 4, stride = 64>", "<size = 4, stride = 32>"),
    "a link's offset": swap("src_offsets = [0, 2048, ", "src_offsets = [0, 2000, "),
    "a link to nowhere": swap("fifoOuts = [@A_row_1]", "fifoOuts = [@A_row_9]"),
    "the depth": swap("elemNumber = 2", "elemNumber = 3"),
    "the steps over K": swap('<{value = 2 : index}>', '<{value = 3 : index}>'),
    "a release missing": lambda t: re.sub(r' *"aie.objectfifo.release".*@A_row_0.*\n', "", t, count=1),
    "the wrong row of A": swap("objFifo_name = @A_row_0", "objFifo_name = @A_row_1", -1),
    "a core in the wrong place": swap("col = 3 : i32, row = 5", "col = 3 : i32, row = 6"),
    "another stack": swap("stack_size = 3328", "stack_size = 65536"),
    "the device": swap("device = 4", "device = 5"),
    "unknown text": swap("aie.end", "aie.finish"),
    "half a file": lambda t: t[: len(t) // 2],
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_error_in_the_text_is_detected(mutation, texts):
    changed = MUTATIONS[mutation](texts[1][1])
    assert changed != texts[1][1]
    with pytest.raises(DesignError) as caught:
        mlir.check(changed)
    assert len(str(caught.value).splitlines()) == 1


def test_a_design_too_large_for_l1_is_reported_with_its_figures(texts):
    with pytest.raises(DesignError, match=r"needs 106,496 bytes of L1 with its stack, and has 65,536"):
        mlir.check(texts[1][1].replace("stack_size = 3328", "stack_size = 65536"))


def test_a_fifth_transfer_in_a_queue_is_reported_with_the_fix(texts):
    """A third turn in descriptors of its own, before the waits for the first."""
    lines = texts[1][1].splitlines(keepends=True)
    waits = [i for i, line in enumerate(lines) if "dma_wait" in line][:4]
    transfers = [i for i, line in enumerate(lines) if "dma_memcpy_nd" in line and i > waits[0]]
    for i in transfers:
        lines[i] = re.sub(r"id = (\d)", lambda found: f"id = {(5, 6, 7, 13, 14)[int(found[1])]}", lines[i], count=1)
    late = lines[: waits[0]] + lines[waits[-1] + 1 : transfers[-1] + 1] + lines[waits[0] : waits[-1] + 1]
    with pytest.raises(DesignError, match="for A is lost: the queue of its channel holds 4 transfers; wait for an"):
        mlir.check("".join(late + lines[transfers[-1] + 1 :]))


def test_l1_of_the_text_is_l1_of_the_plan(texts):
    for one, _, design in texts:
        structure = design.structure
        for core in structure.cores:
            ends = [f for f in structure.fifos if core.place in (f.producer, *f.consumers)]
            assert sum(f.depth * f.block.size for f in ends) == one.l1_bytes


def test_the_text_has_the_planned_numbers_of_parts(texts):
    for one, _, found in texts:
        g = one.geometry
        assert len(found.structure.cores) == g.cores
        assert len(found.structure.tiles) == g.columns * (2 + g.rows)
        per_operand = {"A": 2 * g.rows, "B": 2 * g.columns, "C": (g.rows + 1) * g.columns}
        names = [fifo.name for fifo in found.structure.fifos]
        assert {o: sum(name.startswith(o) for name in names) for o in "ABC"} == per_operand
        assert all(isinstance(fifo, Fifo) and fifo.depth == 2 for fifo in found.structure.fifos)
        blocks = one.launch.m // (g.rows * one.core.m)
        turns = -(-blocks // one.row_blocks_per_transfer)
        assert sum(isinstance(item, Wait) for item in found.sequence) == turns * g.columns


def test_without_xdsl_the_error_names_the_package(texts, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **kw):
        if name.startswith("xdsl"):
            raise ImportError(name)
        return real(name, *rest, **kw)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendUnavailable, match=r"pip install 'tilewhisper\[npu\]'"):
        mlir.check(texts[0][1])
