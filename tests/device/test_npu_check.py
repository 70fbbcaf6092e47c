"""The steps of `npu-check` on the emulated device: right, with broken designs, and with failures of the device."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tilewhisper.kernels.base import BackendUnavailable, ProductShape, UnsupportedShape
from tilewhisper.kernels.xdna import artifacts, xrt
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, matmul_fast
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.container import pack, unpack
from tilewhisper.kernels.xdna.emulated.on_demand import DesignsOnDemand
from tilewhisper.kernels.xdna.emulated.pyxrt import Faults, make
from tilewhisper.kernels.xdna.npu_check.all_steps import STEP_NAMES, plans_of_check, run_steps
from tilewhisper.kernels.xdna.npu_check.other_design import OtherDesign, run_other
from tilewhisper.kernels.xdna.npu_check.parts import device_parts, free_contexts
from tilewhisper.kernels.xdna.npu_check.running import BuiltProduct
from tilewhisper.kernels.xdna.npu_check.steps import STEPS
from tilewhisper.kernels.xdna.opening import OpenedNpu

ONE_CORE, ONE_COLUMN, WHOLE_ARRAY = (step.plan(XDNA1) for step in STEPS)


def npu(device=XDNA1, find=None, **faults) -> OpenedNpu:
    opened = xrt.open_device(make(device, tier="fast", faults=Faults(**faults)))
    return OpenedNpu(opened, device, find or DesignsOnDemand(), emulated=True)


def results(*arguments, **faults):
    return list(run_steps(npu(*arguments, **faults), 1000))


def designs_with(folder, changed, change):
    """All designs of the steps, the program of one of them changed: a function from a plan to its design."""
    build([cut for _, cut in plans_of_check(XDNA1)], folder)
    found = artifacts.find(folder, changed)
    binary = unpack(found.xclbin.read_bytes())
    artifacts.write(
        folder,
        changed.design,
        pack(change(binary.program), artifacts.KERNEL),
        {changed.title: found.instructions.read_bytes()},
        target="emulated",
        tools={},
    )
    return partial(artifacts.find, folder)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_every_step_passes(device):
    found = results(device)
    assert [(result.name, result.state) for result in found] == [(name, "passed") for name in STEP_NAMES]
    assert all(len(result.seconds) == 2 for result in found)


def test_steps_use_one_core_then_one_column_then_all_cores():
    for device in DEVICES.values():
        cores = [step.plan(device).geometry.cores for step in STEPS]
        assert cores == [1, device.rows, device.cores]
        for step in STEPS:
            cut = step.plan(device)
            assert cut.calls == 1
            assert cut.shape == cut.padded, "every element is compared"


def test_a_binary_of_another_k_is_recognised(tmp_path):
    find = designs_with(tmp_path, ONE_COLUMN, lambda program: replace(program, design=replace(program.design, k=128)))
    one_core, one_column, whole_array, _ = results(XDNA1, find)
    assert one_core.passed
    assert one_column.state == "wrong"
    assert "end after 128 of 256 terms: the binary was built for K = 128" in one_column.reason
    assert "--pairs" in one_column.remedy
    assert (whole_array.state, whole_array.seconds) == ("not run", ())


def test_a_binary_of_a_larger_k_hangs(tmp_path):
    find = designs_with(tmp_path, ONE_COLUMN, lambda program: replace(program, design=replace(program.design, k=512)))
    result = results(XDNA1, find)[1]
    assert result.state == "hung"
    assert result.reason == "the NPU did not answer within 1000 ms (TIMEOUT)"
    assert "dmesg" in result.remedy


def test_a_wrong_layout_of_c_is_recognised(tmp_path):
    def in_blocks(program):
        c, core = program.c, program.design.core
        return replace(program, c=replace(c, sizes=(1, 1, core.m, core.n), strides=(0, 0, core.n, 1)))

    result = results(XDNA1, designs_with(tmp_path, WHOLE_ARRAY, in_blocks))[2]
    assert result.state == "wrong"
    assert "the 4x4 blocks of C are not put back into rows" in result.reason


def test_a_transposed_layout_of_b_has_a_wrong_element_and_a_cause(tmp_path):
    def other(program):
        r, s = program.b.sizes[-2:]
        strides = (*program.b.strides[:-2], *reversed(program.b.strides[-2:]))
        return replace(program, b=replace(program.b, sizes=(*program.b.sizes[:-2], r, s), strides=strides))

    result = results(XDNA1, designs_with(tmp_path, ONE_CORE, other))[0]
    assert result.state == "wrong"
    assert result.difference.elements == 64 * 64
    assert result.reason


def test_a_second_run_that_differs_is_told_apart(monkeypatch):
    """Every second execution of the array leaves C unwritten, as after a lock that was not given back."""
    target = npu()
    engine, runs = target.opened.pyxrt.emulation.engine, []
    execute = engine.execute

    def every_other(*arguments):
        runs.append(1)
        if len(runs) % 2:
            execute(*arguments)

    monkeypatch.setattr(engine, "execute", every_other)
    first, *rest = run_steps(target, 1000)
    assert first.state == "wrong"
    assert len(first.seconds) == 2
    assert first.reason.startswith("the first run was right, this one is not, so the array kept a state: no element")
    assert {result.state for result in rest} == {"not run"}


BEFORE_THE_MLP = 6
"""Runs: two of each product."""


@pytest.mark.parametrize(("run", "product"), [(1, "fc1"), (2, "fc2")])
def test_the_wrong_product_of_the_chain_is_named(run, product, monkeypatch):
    target, runs = npu(), []
    engine = target.opened.pyxrt.emulation.engine
    execute = engine.execute

    def halved(program, instructions, a, b, c):
        runs.append(1)
        execute(program, instructions, a, b, c)
        if len(runs) == BEFORE_THE_MLP + run:
            c[: len(c) // 2] = 0

    monkeypatch.setattr(engine, "execute", halved)
    *products, mlp = run_steps(target, 1000)
    assert all(result.passed for result in products)
    assert mlp.state == "wrong"
    assert mlp.reason.startswith(f"{product}: ")
    assert mlp.difference.first.row == 0


def test_the_middle_result_of_the_chain_stays_on_the_device(monkeypatch):
    """Between its two runs nothing is synced in either direction."""
    target, events = npu(), []
    pyxrt = target.opened.pyxrt
    execute, sync = pyxrt.emulation.engine.execute, pyxrt.bo.sync

    def noted_sync(buffer, direction, *extent):
        if buffer.size() > 10_000:  # not instructions
            events.append("sync")
        sync(buffer, direction, *extent)

    monkeypatch.setattr(pyxrt.emulation.engine, "execute", lambda *all: (events.append("run"), execute(*all)))
    monkeypatch.setattr(pyxrt.bo, "sync", noted_sync)
    *_, mlp = run_steps(target, 1000)
    assert mlp.passed
    first, second = [i for i, event in enumerate(events) if event == "run"][BEFORE_THE_MLP:]
    assert second == first + 1


def test_a_hang_in_the_chain():
    assert [result.state for result in results(hang_at=BEFORE_THE_MLP + 2)] == ["passed"] * 3 + ["hung"]


@pytest.mark.parametrize(
    ("faults", "states", "reason", "remedy"),
    [
        (
            {"hang_at": 1},
            ["hung", "not run", "not run", "not run"],
            "within 1000 ms (TIMEOUT)",
            "xrt-smi examine -r aie-partitions",
        ),
        ({"hang_at": 4}, ["passed", "hung", "not run", "not run"], "within 1000 ms (TIMEOUT)", "--pairs"),
        ({"lost_at": 3}, ["passed", "failed", "not run", "not run"], "No such device", "dmesg"),
        ({"memlock": 60_000}, ["passed", "failed", "not run", "not run"], "memlock limit", "dmesg"),
        (
            {"out_of_contexts": True},
            ["failed", "not run", "not run", "not run"],
            "all hardware contexts are in use",
            "dmesg",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_failures_of_the_device_stop_at_their_step(faults, states, reason, remedy):
    found = results(**faults)
    assert [result.state for result in found] == states
    failed = next(result for result in found if result.state in ("hung", "failed"))
    assert reason in failed.reason
    assert remedy in failed.remedy


def test_an_aborted_run_names_driver_and_firmware(monkeypatch):
    target = npu()
    monkeypatch.setattr(target.opened.pyxrt.emulation, "begin_run", lambda: False)
    monkeypatch.setattr(
        target.opened.pyxrt.run, "wait", lambda self, ms: target.opened.pyxrt.ert_cmd_state.ERT_CMD_STATE_ABORT
    )
    result = next(run_steps(target, 1000))
    assert (result.state, "ABORT" in result.reason) == ("failed", True)
    assert "driver and the firmware from the same source" in result.remedy


def test_a_missing_design_says_how_to_build_it(tmp_path):
    first = results(XDNA1, partial(artifacts.find, tmp_path))[0]
    assert first.state == "not built"
    assert "no design has been built" in first.reason
    assert "run scripts" not in first.reason
    assert first.remedy == "run python scripts/build_kernels.py --check --device xdna1 --compile"


@pytest.mark.parametrize("taken", [0, 4, 6])
def test_free_contexts_are_counted_and_given_back(taken):
    target = npu(contexts_taken=taken)
    built = BuiltProduct.of(target.find(ONE_CORE))
    free, reason = free_contexts(target.opened, built, XDNA1.max_contexts)
    assert free == XDNA1.max_contexts - taken
    assert bool(reason) == bool(taken)
    assert target.opened.pyxrt.emulation.contexts_open == 0


def test_no_free_context_stops_the_check(tmp_path):
    *_, contexts = device_parts(npu(out_of_contexts=True), tmp_path)
    assert contexts.found == "0 of 6 free"
    assert contexts.needed
    assert "close another program" in str(contexts.problem)


def test_designs_of_another_version_and_missing_ones_are_listed(tmp_path):
    build([ONE_CORE], tmp_path)
    target = replace(npu(find=partial(artifacts.find, tmp_path)), emulated=False)
    designs = next(part for part in device_parts(target, tmp_path) if part.name == "designs")
    assert designs.found == f"1 for xdna1 in {tmp_path}"
    assert designs.problem.reason == "4 of the 5 designs of this check are missing"
    manifest = artifacts.find(tmp_path, ONE_CORE).folder / artifacts.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    designs = next(part for part in device_parts(target, tmp_path) if part.name == "designs")
    assert designs.found.startswith("0 for xdna1")
    assert "built by another version of tilewhisper" in designs.problem.reason
    assert "--check --device xdna1" in designs.problem.remedy
    assert not designs.needed


def other(folder, dtype_out="f32", shape=(512, 256, 64)):
    build([ONE_COLUMN], folder)
    found = artifacts.find(folder, ONE_COLUMN)
    return OtherDesign(found.xclbin, found.instructions, ProductShape(1, *shape), dtype_out)


def test_a_design_of_another_tool_is_run_and_compared(tmp_path):
    result = run_other(npu(), other(tmp_path), 1000)
    assert (result.name, result.state) == ("other design", "passed")
    assert result.product == "(512, 256) x (256, 64), bf16 -> f32"


def test_instructions_as_text_are_read_too(tmp_path):
    design = other(tmp_path)
    text = tmp_path / "insts.txt"
    text.write_text("\n".join(f"{word:08X}" for word in np.fromfile(design.instructions, "<u4")))
    design = replace(design, instructions=text)
    design.check()
    assert run_other(npu(), design, 1000).passed


def test_another_design_of_the_wrong_shape_is_wrong(tmp_path):
    result = run_other(npu(), other(tmp_path, shape=(512, 256, 128)), 1000)
    assert result.state == "wrong"
    assert result.difference.wrong
    assert "never written" in result.reason


def test_a_bf16_result_is_read_as_bf16(tmp_path, monkeypatch):
    """The emulated device computes float32 results only, so its engine is replaced."""
    target = npu()

    def execute(program, instructions, a, b, c):
        product = matmul_fast(a.view(np.uint16).reshape(512, 256), b.view(np.uint16).reshape(256, 64))
        c.view(np.uint16)[: product.size] = bf16_bits(product, Rounding.NEAREST_EVEN).reshape(-1)

    monkeypatch.setattr(target.opened.pyxrt.emulation.engine, "execute", execute)
    design = other(tmp_path, "bf16")
    assert run_other(target, design, 1000).passed
    assert not run_other(target, replace(design, dtype_out="f32"), 1000).passed


def test_files_that_cannot_be_another_design_are_refused(tmp_path):
    design = other(tmp_path)
    (tmp_path / "odd").write_bytes(b"\xff" * 7)
    (tmp_path / "empty").write_bytes(b"")
    for wrong, reason in (
        ({"xclbin": design.instructions}, "is not an xclbin"),
        ({"xclbin": tmp_path / "none"}, "cannot read .*none: No such file"),
        ({"xclbin": tmp_path}, "cannot read .*: Is a directory"),
        ({"instructions": tmp_path / "odd"}, "is not an instruction stream"),
        ({"instructions": tmp_path / "empty"}, "is not an instruction stream"),
        ({"instructions": design.xclbin}, "is not an instruction stream"),
    ):
        with pytest.raises(BackendUnavailable, match=reason):
            replace(design, **wrong).check()
    with pytest.raises(UnsupportedShape, match="has more than 67,108,864 elements"):
        replace(design, shape=ProductShape(1, 100_000, 100_000, 64)).check()
