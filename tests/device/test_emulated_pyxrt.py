"""The emulated pyxrt: a product by the bindings' own sequence, its surface, contexts, and device faults."""

import gc
from pathlib import Path

import pytest
from emulated_session import ON_XDNA2, OTHER_K, PLAN, Session

from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.pyxrt import SURFACE, EmulatedCrash, Faults, make


@pytest.mark.parametrize("p", [PLAN, OTHER_K, ON_XDNA2], ids=lambda p: f"{p.device.name} {p.launch}")
@pytest.mark.parametrize("tier", ["fast", "exact"])
def test_a_product_by_the_bindings_own_sequence(root, p, tier):
    session = Session(make(p.device, tier), root, p)
    run = session.run()
    assert run.state() is session.state("NEW")
    assert session.finish(run) == "COMPLETED"
    assert run.state() is session.state("COMPLETED")
    assert session.is_right()
    assert session.pyxrt.emulation.runs == session.pyxrt.emulation.completed == 1


def test_the_surface_equals_the_bindings():
    module = make(XDNA1)
    names = {name.split(".")[0] for name in SURFACE}
    assert {name for name in vars(module) if not name.startswith("_")} == names | {"emulation"}
    for path, attributes in SURFACE.items():
        thing = module
        for part in path.split("."):
            thing = getattr(thing, part)
        if not isinstance(thing, type):
            assert not attributes
            continue
        there = {name for name in dir(thing) if not name.startswith("_")} - {"machine", "module", "public_name"}
        assert there == attributes - {"__call__"}, path
        assert all(hasattr(thing, name) for name in attributes)
    assert make(XDNA1).emulation is not module.emulation


def test_states_have_the_numbers_and_names_of_the_bindings():
    states = make(XDNA1).ert_cmd_state
    assert states.ERT_CMD_STATE_COMPLETED.value == 4
    assert (states.ERT_CMD_STATE_ABORT.value, states.ERT_CMD_STATE_TIMEOUT.value) == (6, 8)
    assert str(states.ERT_CMD_STATE_TIMEOUT) == "ert_cmd_state.ERT_CMD_STATE_TIMEOUT"


def test_the_devices_name_and_address():
    for device, name in ((XDNA1, "NPU Phoenix"), (XDNA2, "NPU Strix")):
        module = make(device)
        assert module.enumerate_devices() == 1
        assert module.device(0).get_info(module.xrt_info_device.name) == name
        assert module.device(module.device(0).get_info(module.xrt_info_device.bdf))


# Contexts


@pytest.mark.parametrize(("device", "limit", "p"), [(XDNA1, 6, PLAN), (XDNA2, 16, ON_XDNA2)], ids=["xdna1", "xdna2"])
def test_the_number_of_contexts_is_limited(root, device, limit, p):
    module = make(device)
    sessions = [Session(module, root, p) for _ in range(limit)]
    assert module.emulation.contexts_open == limit
    with pytest.raises(RuntimeError, match=r"DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed \(err=-22\)"):
        Session(module, root, p)
    sessions.pop()
    Session(module, root, p)
    assert module.emulation.contexts_made == limit + 1


def test_contexts_of_other_processes_count(root):
    module = make(XDNA1, faults=Faults(contexts_taken=5))
    first = Session(module, root)
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        Session(module, root)
    assert first.is_right() is False
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        Session(make(XDNA1, faults=Faults(out_of_contexts=True)), root)


@pytest.mark.parametrize("holder", ["kernel", "run", "runlist"])
def test_kernels_runs_and_run_lists_keep_a_context_alive(session, holder):
    machine = session.pyxrt.emulation
    runs = session.pyxrt.runlist(session.context)
    held = {"kernel": session.kernel, "run": session.run(), "runlist": runs}[holder]
    del runs
    session.kernel = session.context = None
    gc.collect()
    assert machine.contexts_open == 1
    del held
    assert machine.contexts_open == 0


def test_a_design_of_another_device_is_rejected(root):
    module = make(XDNA2)
    binary = module.xclbin(str(artifacts.find(root, PLAN).xclbin))
    device = module.device(0)
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        module.hw_context(device, device.register_xclbin(binary))


def test_an_xclbin_must_be_registered(session, xclbin):
    module = make(XDNA1)
    with pytest.raises(RuntimeError, match="registered"):
        module.hw_context(module.device(0), module.xclbin(xclbin).get_uuid())


def test_an_unknown_kernel(session):
    with pytest.raises(RuntimeError, match=r"^No such kernel 'MLIR'$"):
        session.pyxrt.kernel(session.context, "MLIR")


# Files


def test_a_missing_xclbin(tmp_path):
    path = str(tmp_path / "no.xclbin")
    with pytest.raises(RuntimeError) as error:
        make(XDNA1).xclbin(path)
    assert str(error.value) == f"Failed to open file '{path}' for reading"


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "magic"])
def test_a_corrupt_xclbin(tmp_path, xclbin, damage):
    whole = Path(xclbin).read_bytes()
    bad = {"empty": b"", "truncated": whole[:-1], "flipped": whole[:-9] + b"9" + whole[-8:], "magic": b"X" + whole[1:]}
    assert whole.startswith(b"xclbin2\0")
    path = tmp_path / "bad.xclbin"
    path.write_bytes(bad[damage])
    with pytest.raises(RuntimeError, match=r"^Invalid xclbin$"):
        make(XDNA1).xclbin(str(path))


# Faults


@pytest.mark.parametrize("faults", [Faults(no_device=True), Faults(no_permission=True)], ids=["device", "permission"])
def test_no_device(faults):
    module = make(XDNA1, faults=faults)
    assert module.enumerate_devices() == 0
    with pytest.raises(RuntimeError) as error:
        module.device(0)
    assert str(error.value) == " No such device with index '0'"


def test_a_second_device(session):
    with pytest.raises(RuntimeError, match=r"^ No such device with index '1'$"):
        session.pyxrt.device(1)


def test_after_a_hang_runs_abort_until_the_context_is_rebuilt(root):
    module = make(XDNA1, faults=Faults(hang_at=2))
    session = Session(module, root)
    assert session.finish(session.run()) == "COMPLETED"
    hanging = session.run()
    assert session.finish(hanging) == "TIMEOUT"
    for no_timeout in ((), (0,)):
        with pytest.raises(EmulatedCrash, match="forever"):
            hanging.wait(*no_timeout)
    assert session.finish(session.run()) == "ABORT"
    session.kernel = module.kernel(session.context, "MLIR_AIE")
    assert session.finish(session.run()) == "ABORT", "a new kernel is not a new context"
    again = Session(module, root)
    assert again.finish(again.run()) == "COMPLETED"
    assert again.is_right()
    assert (module.emulation.runs, module.emulation.completed) == (5, 2)


def test_hangs_at_several_runs(root):
    module = make(XDNA1, faults=Faults(hang_at=(1, 2)))
    for expected in ("TIMEOUT", "TIMEOUT", "COMPLETED"):
        session = Session(module, root)
        assert session.finish(session.run()) == expected


def test_an_error_breaks_the_context_too(session):
    run = session.pyxrt.run(session.kernel)
    assert session.finish(run) == "ERROR"
    assert session.finish(session.run()) == "ABORT"


def test_a_device_that_is_lost_stays_lost(root):
    module = make(XDNA1, faults=Faults(lost_at=2))
    session = Session(module, root)
    assert session.finish(session.run()) == "COMPLETED"
    run = session.run()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"EXEC_CMD IOCTL failed \(err=-19\)"):
            run.start()
    assert module.enumerate_devices() == 0
    for attempt in (lambda: session.buffer(4, 3), lambda: session.to_device(session.a), lambda: Session(module, root)):
        with pytest.raises(RuntimeError):
            attempt()
