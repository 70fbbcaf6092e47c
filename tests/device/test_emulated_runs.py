"""The emulated pyxrt's runs and run lists: arguments, lifetimes and failures."""

from contextlib import suppress

import pytest
from emulated_session import LARGER_K, OTHER_K, PLAN, Session

from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.emulated.pyxrt import EmulatedCrash, Faults, make


@pytest.mark.parametrize("place", [0, 2, 3, 5])
@pytest.mark.parametrize("wrong", [None, "3", 3.0, [3]], ids=repr)
def test_a_call_ignores_an_argument_of_a_wrong_type(session, place, wrong):
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
def test_set_arg_rejects_a_wrong_type(session, wrong):
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


def test_a_length_past_the_instructions_is_an_error(session):
    session.length += 4
    assert session.finish(session.run()) == "ERROR"


def test_a_length_in_words_instead_of_bytes_hangs(session):
    session.length //= 4
    assert session.finish(session.run()) == "TIMEOUT"


def test_a_binary_of_another_k(root):
    smaller = Session(make(XDNA1), root, PLAN, xclbin_of=OTHER_K)
    assert smaller.finish(smaller.run()) == "COMPLETED"
    assert smaller.result().all()
    assert not smaller.is_right()
    larger = Session(make(XDNA1), root, PLAN, xclbin_of=LARGER_K)
    assert larger.finish(larger.run()) == "TIMEOUT"


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


def test_a_run_belongs_to_its_list_until_the_list_is_dropped(session):
    run = session.run()
    listed = session.pyxrt.runlist(session.context)
    listed.add(run)
    with pytest.raises(RuntimeError, match="already associated with a runlist"):
        session.pyxrt.runlist(session.context).add(run)
    with pytest.raises(RuntimeError, match="belongs to a runlist"):
        run.start()
    del listed
    assert session.finish(run) == "COMPLETED"


def test_a_run_list_must_be_idle_before_reuse(session):
    listed = session.pyxrt.runlist(session.context)
    listed.add(session.run())
    listed.execute()
    with pytest.raises(RuntimeError, match="must be idle before submitting"):
        listed.execute()
    with pytest.raises(RuntimeError, match="must be idle before adding"):
        listed.add(session.run())
    listed.wait()
    listed.add(session.run())


def test_a_hanging_run_aborts_the_rest_of_its_list(root):
    session = Session(make(XDNA1, faults=Faults(hang_at=2)), root)
    runs = [session.run() for _ in range(3)]
    listed = session.pyxrt.runlist(session.context)
    for run in runs:
        listed.add(run)
    listed.execute()
    with pytest.raises(RuntimeError, match=r"^runlist failed execution$"):
        listed.wait()
    assert [run.state().name.rpartition("_")[2] for run in runs] == ["COMPLETED", "TIMEOUT", "ABORT"]


def test_a_run_list_has_no_timeout(session):
    with pytest.raises(TypeError):
        session.pyxrt.runlist(session.context).wait(100)


def test_an_older_xrt_has_no_run_lists():
    assert hasattr(make(XDNA1), "runlist")
    assert not hasattr(make(XDNA1, faults=Faults(no_runlist=True)), "runlist")
