"""The emulated pyxrt's buffers: host and device side, parts, groups, and their pitfalls."""

import numpy as np
import pytest
from emulated_session import Session

from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.emulated.machine import FREED
from tilewhisper.kernels.xdna.emulated.pyxrt import EmulatedCrash, Faults, make


def test_host_and_device_differ_until_synced(session):
    assert session.finish(session.run()) == "COMPLETED"
    assert not np.frombuffer(session.c.map(), np.float32).any()
    assert session.is_right()
    session.b.write(np.zeros_like(session.operands[1]), 0)
    session.finish(session.run())
    assert session.is_right(), "the device still has the B that was synced before"


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


def test_write_ignores_strides(session):
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
    assert bytes(part.map()) == b"wxyz", "a part keeps its buffer alive"


def test_a_run_on_a_sub_buffer(session):
    m, n = session.plan.launch.m, session.plan.launch.n
    large = session.buffer(4 * m * n + 64, 5)
    session.c = session.pyxrt.bo(large, 4 * m * n, 64)
    assert session.finish(session.run()) == "COMPLETED"
    assert session.is_right()


def test_bo_accepts_only_positional_arguments_of_its_types(session):
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


def test_a_buffer_of_another_group_is_copied_and_loses_its_results(session):
    session.c = session.buffer(session.c.size(), 1)
    assert session.finish(session.run()) == "COMPLETED"
    assert not session.result().any()


def test_the_memlock_limit(root):
    session = Session(make(XDNA1, faults=Faults(memlock=10**6)), root)
    held = [session.buffer(300_000, 3)]
    with pytest.raises(RuntimeError, match=r"mmap_range\(len=700000\) failed"):
        session.buffer(700_000, 3)
    held.clear()
    session.buffer(500_000, 3)
