"""The emulated pyxrt: a product by the bindings' own sequence, and every trap and fault they are known for."""

import gc
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.tiling import TilePlan, plan
from tilewhisper.kernels.xdna import artifacts
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values
from tilewhisper.kernels.xdna.emulated.build import build
from tilewhisper.kernels.xdna.emulated.machine import FREED
from tilewhisper.kernels.xdna.emulated.pyxrt import SURFACE, EmulatedCrash, Faults, make
from tilewhisper.kernels.xdna.geometries import XDNA1, XDNA2, find_geometry


def cut(m: int, k: int, n: int, device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry("whole-array", device), device)


PLAN = cut(300, 128, 128)
OTHER_K = cut(300, 64, 128)
LARGER_K = cut(300, 256, 128)
ON_XDNA2 = cut(300, 128, 256, XDNA2)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("designs")
    build([PLAN, OTHER_K, LARGER_K, ON_XDNA2], folder)
    return folder


@pytest.fixture
def xclbin(root) -> str:
    return str(artifacts.find(root, PLAN).xclbin)


@dataclass
class Session:
    """Everything up to a run, as section 1 of the design note has it."""

    pyxrt: object
    root: Path
    plan: TilePlan = PLAN
    xclbin_of: TilePlan | None = None

    def __post_init__(self):
        x, p = self.pyxrt, self.plan
        found = artifacts.find(self.root, p)
        self.device = x.device(0)
        binary = x.xclbin(str(artifacts.find(self.root, self.xclbin_of or p).xclbin))
        self.context = x.hw_context(self.device, self.device.register_xclbin(binary))
        self.kernel = x.kernel(self.context, binary.get_kernels()[0].get_name())
        stream = found.instructions.read_bytes()
        self.length = found.instruction_count
        self.instructions = self.buffer(len(stream), 1, x.bo.cacheable)
        self.instructions.write(stream, 0)
        self.instructions.sync(x.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)
        random = np.random.default_rng(0)
        m, k, n = p.launch.m, p.launch.k, p.launch.n
        self.operands = [
            bf16_bits(random.standard_normal(shape).astype(np.float32), Rounding.NEAREST_EVEN)
            for shape in ((m, k), (k, n))
        ]
        self.a, self.b, self.c = (self.buffer(size, 3 + i) for i, size in enumerate((2 * m * k, 2 * k * n, 4 * m * n)))
        for buffer, operand in zip((self.a, self.b), self.operands, strict=True):
            buffer.write(operand, 0)
            self.to_device(buffer)

    def buffer(self, size: int, argument: int, flag=None):
        return self.pyxrt.bo(self.device, size, flag or self.pyxrt.bo.host_only, self.kernel.group_id(argument))

    def to_device(self, buffer):
        buffer.sync(self.pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)

    @property
    def arguments(self) -> list:
        return [3, self.instructions, self.length, self.a, self.b, self.c]

    def run(self):
        run = self.pyxrt.run(self.kernel)
        for index, value in enumerate(self.arguments):
            run.set_arg(index, value)
        return run

    def result(self) -> np.ndarray:
        self.c.sync(self.pyxrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE)
        shape = self.plan.launch.m, self.plan.launch.n
        return np.frombuffer(self.c.map(), np.float32).reshape(shape).copy()

    def is_right(self) -> bool:
        a, b = (bf16_values(operand).astype(np.float64) for operand in self.operands)
        tolerance = (self.plan.launch.k + 1) * 2.0**-24 * (abs(a) @ abs(b))
        return bool((abs(self.result() - a @ b) <= tolerance).all())

    def state(self, name: str):
        return getattr(self.pyxrt.ert_cmd_state, f"ERT_CMD_STATE_{name}")

    def finish(self, run) -> str:
        run.start()
        return str(run.wait(2000)).removeprefix("ert_cmd_state.ERT_CMD_STATE_")


@pytest.fixture
def session(root) -> Session:
    return Session(make(XDNA1), root)


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


def test_the_surface_is_the_bindings_and_no_more():
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


def test_states_have_the_bindings_numbers_and_names():
    states = make(XDNA1).ert_cmd_state
    assert states.ERT_CMD_STATE_COMPLETED.value == 4
    assert (states.ERT_CMD_STATE_ABORT.value, states.ERT_CMD_STATE_TIMEOUT.value) == (6, 8)
    assert str(states.ERT_CMD_STATE_TIMEOUT) == "ert_cmd_state.ERT_CMD_STATE_TIMEOUT"


def test_who_the_device_is():
    for device, name in ((XDNA1, "NPU Phoenix"), (XDNA2, "NPU Strix")):
        module = make(device)
        assert module.enumerate_devices() == 1
        assert module.device(0).get_info(module.xrt_info_device.name) == name
        assert module.device(module.device(0).get_info(module.xrt_info_device.bdf))


# Buffers


def test_host_and_device_differ_until_synced(session):
    assert session.finish(session.run()) == "COMPLETED"
    assert not np.frombuffer(session.c.map(), np.float32).any()
    assert session.is_right()
    session.b.write(np.zeros_like(session.operands[1]), 0)
    session.finish(session.run())
    assert session.is_right(), "the device still has the B that was sent"


def test_part_of_a_buffer_is_synced(session):
    buffer = session.buffer(8, 3)
    buffer.write(bytes(range(1, 9)), 0)
    direction = session.pyxrt.xclBOSyncDirection
    buffer.sync(direction.XCL_BO_SYNC_BO_TO_DEVICE, 4, 2)
    buffer.sync(direction.XCL_BO_SYNC_BO_FROM_DEVICE)
    assert bytes(buffer.map()) == bytes([0, 0, 3, 4, 5, 6, 0, 0])
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffer.sync(direction.XCL_BO_SYNC_BO_TO_DEVICE, 8, 1)


def test_a_map_does_not_keep_its_buffer_alive(session):
    buffer = session.buffer(16, 3)
    view = buffer.map()
    assert (view.format, view.readonly, len(view)) == ("B", False, 16)
    view[:4] = b"abcd"
    assert bytes(buffer.read(4, 0).tobytes()) == b"abcd"
    del buffer
    assert set(view) == {FREED}


def test_read_is_a_copy_of_signed_bytes(session):
    buffer = session.buffer(4, 3)
    buffer.write(np.array([-1, 2, -3, 4], np.int8), 0)
    copy = buffer.read(2, 2)
    assert copy.dtype == np.int8
    assert copy.tolist() == [-3, 4]
    copy[:] = 0
    assert buffer.read(2, 2).tolist() == [-3, 4]
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffer.read(4, 1)
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffer.write(bytes(4), 1)


def test_write_does_not_ask_for_strides(session):
    matrix = np.arange(12, dtype=np.uint16).reshape(3, 4)
    buffer = session.buffer(matrix.nbytes, 3)
    for view in (matrix.T, matrix[:, ::2]):
        buffer.write(view, 0)
        written = np.frombuffer(buffer.map(), np.uint16)[: view.size]
        assert written.tolist() == list(range(view.size)) != view.reshape(-1).tolist()
    with pytest.raises(EmulatedCrash):
        buffer.write(matrix[::-1], 0)
    with pytest.raises(TypeError):
        buffer.write([1, 2], 0)


def test_sub_buffers(session):
    x = session.pyxrt
    parent = session.buffer(16, 3)
    part = x.bo(parent, 4, 8)
    assert (part.size(), part.address()) == (4, parent.address() + 8)
    part.write(b"wxyz", 0)
    assert bytes(parent.map())[8:12] == b"wxyz"
    with pytest.raises(RuntimeError):
        x.bo(parent, 9, 8)
    with pytest.raises(EmulatedCrash, match="sub-buffer of a sub-buffer"):
        x.bo(part, 2, 0)
    del parent
    assert bytes(part.map()) == b"wxyz", "a part keeps the whole alive"


def test_a_run_on_a_sub_buffer(session):
    m, n = session.plan.launch.m, session.plan.launch.n
    large = session.buffer(4 * m * n + 64, 5)
    session.c = session.pyxrt.bo(large, 4 * m * n, 64)
    assert session.finish(session.run()) == "COMPLETED"
    assert session.is_right()


def test_bo_takes_positional_arguments_of_its_types_only(session):
    x = session.pyxrt
    for arguments in (
        (session.device, 16),
        (session.device, 16, 1 << 29, 0),
        (16,),
        (session.device, 1.5, x.bo.normal, 0),
    ):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            x.bo(*arguments)
    with pytest.raises(RuntimeError, match="CREATE_BO"):
        x.bo(session.device, 0, x.bo.host_only, 0)


def test_a_buffer_of_another_group_is_copied_and_its_results_are_never_seen(session):
    session.c = session.buffer(session.c.size(), 4)
    assert session.finish(session.run()) == "COMPLETED"
    assert not session.result().any()


def test_memlock(root):
    session = Session(make(XDNA1, faults=Faults(memlock=10**6)), root)
    held = [session.buffer(300_000, 3)]
    with pytest.raises(RuntimeError, match=r"mmap_range\(len=700000\) failed"):
        session.buffer(700_000, 3)
    held.clear()
    session.buffer(500_000, 3)


# Arguments


@pytest.mark.parametrize("place", [0, 2, 3, 5])
@pytest.mark.parametrize("wrong", [None, "3", 3.0, [3]], ids=repr)
def test_a_call_swallows_an_argument_of_a_wrong_type(session, place, wrong):
    arguments = session.arguments
    arguments[place] = wrong
    run = session.kernel(*arguments)
    assert isinstance(run, session.pyxrt.run)
    unset_length = place == 2
    assert (run.wait(100) is session.state("COMPLETED")) == unset_length
    assert not session.is_right()


def test_a_call_with_right_arguments_runs(session):
    assert session.kernel(*session.arguments).wait(100) is session.state("COMPLETED")
    assert session.is_right()


@pytest.mark.parametrize("wrong", [None, "3", 3.0, 2**31, -1], ids=repr)
def test_set_arg_does_not_swallow(session, wrong):
    with pytest.raises(TypeError, match=r"set_arg\(\): incompatible"):
        session.run().set_arg(2, wrong)


def test_more_buffers_than_the_kernel_has(session, xclbin):
    declared = session.pyxrt.xclbin(xclbin).get_kernels()[0].get_num_args()
    assert declared == 8
    with pytest.raises(EmulatedCrash, match="segmentation fault"):
        session.run().set_arg(declared, session.a)
    with pytest.raises(EmulatedCrash), suppress(Exception):
        session.kernel(*session.arguments, session.c, session.c, session.c)


def test_a_run_does_not_keep_its_buffers_alive(session):
    run = session.run()
    session.a = None
    assert session.finish(run) == "ERROR"


def test_a_length_past_the_instructions_is_an_error_and_one_short_of_them_hangs(session):
    session.length += 4
    assert session.finish(session.run()) == "ERROR"


def test_a_length_in_words_where_bytes_are_meant_hangs(session):
    session.length //= 4
    assert session.finish(session.run()) == "TIMEOUT"


def test_a_binary_of_another_k(root):
    smaller = Session(make(XDNA1), root, PLAN, xclbin_of=OTHER_K)
    assert smaller.finish(smaller.run()) == "COMPLETED"
    assert smaller.result().all()
    assert not smaller.is_right()
    larger = Session(make(XDNA1), root, PLAN, xclbin_of=LARGER_K)
    assert larger.finish(larger.run()) == "TIMEOUT"


# Contexts


@pytest.mark.parametrize(("device", "limit", "p"), [(XDNA1, 6, PLAN), (XDNA2, 16, ON_XDNA2)], ids=["xdna1", "xdna2"])
def test_there_are_so_many_contexts(root, device, limit, p):
    module = make(device)
    sessions = [Session(module, root, p) for _ in range(limit)]
    assert module.emulation.contexts_open == limit
    with pytest.raises(RuntimeError, match=r"DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed \(err=-22\)"):
        Session(module, root, p)
    sessions.pop()
    Session(module, root, p)
    assert module.emulation.contexts_made == limit + 1


def test_contexts_are_counted_with_those_of_other_processes(root):
    module = make(XDNA1, faults=Faults(contexts_taken=5))
    first = Session(module, root)
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        Session(module, root)
    assert first.is_right() is False
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        Session(make(XDNA1, faults=Faults(out_of_contexts=True)), root)


@pytest.mark.parametrize("holder", ["kernel", "run", "runlist"])
def test_what_keeps_a_context_alive(session, holder):
    machine = session.pyxrt.emulation
    runs = session.pyxrt.runlist(session.context)
    held = {"kernel": session.kernel, "run": session.run(), "runlist": runs}[holder]
    del runs
    session.kernel = session.context = None
    gc.collect()
    assert machine.contexts_open == 1
    del held
    assert machine.contexts_open == 0


def test_a_design_of_another_device_gets_no_context(root):
    module = make(XDNA2)
    binary = module.xclbin(str(artifacts.find(root, PLAN).xclbin))
    device = module.device(0)
    with pytest.raises(RuntimeError, match="CREATE_HWCTX"):
        module.hw_context(device, device.register_xclbin(binary))


def test_an_xclbin_must_be_registered(session, xclbin):
    module = make(XDNA1)
    with pytest.raises(RuntimeError, match="registered"):
        module.hw_context(module.device(0), module.xclbin(xclbin).get_uuid())


def test_no_such_kernel(session):
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


# Failures


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


def test_a_hang_then_aborts_until_the_context_is_rebuilt(root):
    module = make(XDNA1, faults=Faults(hang_at=2))
    session = Session(module, root)
    assert session.finish(session.run()) == "COMPLETED"
    hanging = session.run()
    assert session.finish(hanging) == "TIMEOUT"
    for forever in ((), (0,)):
        with pytest.raises(EmulatedCrash, match="for ever"):
            hanging.wait(*forever)
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


# Run lists


def test_a_run_list(session):
    runs = [session.run() for _ in range(30)]
    listed = session.pyxrt.runlist(session.context)
    for run in runs:
        listed.add(run)
    for _ in range(2):
        listed.execute()
        assert listed.wait() is None
    assert session.is_right()
    assert all(run.state() is session.state("COMPLETED") for run in runs)
    assert (session.pyxrt.emulation.runs, session.pyxrt.emulation.run_lists) == (60, 2)


def test_a_run_belongs_to_its_list_until_that_is_dropped(session):
    run = session.run()
    listed = session.pyxrt.runlist(session.context)
    listed.add(run)
    with pytest.raises(RuntimeError, match="already associated with a runlist"):
        session.pyxrt.runlist(session.context).add(run)
    with pytest.raises(RuntimeError, match="belongs to a runlist"):
        run.start()
    del listed
    assert session.finish(run) == "COMPLETED"


def test_a_run_list_is_waited_for_before_it_is_used_again(session):
    listed = session.pyxrt.runlist(session.context)
    listed.add(session.run())
    listed.execute()
    with pytest.raises(RuntimeError, match="must be idle before submitting"):
        listed.execute()
    with pytest.raises(RuntimeError, match="must be idle before adding"):
        listed.add(session.run())
    listed.wait()
    listed.add(session.run())


def test_a_run_list_with_a_run_that_hangs_raises_and_aborts_the_rest(root):
    session = Session(make(XDNA1, faults=Faults(hang_at=2)), root)
    runs = [session.run() for _ in range(3)]
    listed = session.pyxrt.runlist(session.context)
    for run in runs:
        listed.add(run)
    listed.execute()
    with pytest.raises(RuntimeError, match=r"^runlist failed execution$"):
        listed.wait()
    assert [run.state().name.rpartition("_")[2] for run in runs] == ["COMPLETED", "TIMEOUT", "ABORT"]


def test_a_run_list_takes_no_timeout(session):
    with pytest.raises(TypeError):
        session.pyxrt.runlist(session.context).wait(100)


def test_an_older_xrt_has_no_run_lists():
    assert hasattr(make(XDNA1), "runlist")
    assert not hasattr(make(XDNA1, faults=Faults(no_runlist=True)), "runlist")
