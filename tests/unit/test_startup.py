"""The import time of a command, and the garbage collector, which must be on again however the command ends."""

import gc
import time

import pytest

from tilewhisper.engine import startup


def test_import_seconds_are_measured_once():
    with startup.fast_imports():
        assert not gc.isenabled()
        time.sleep(0.02)
        seconds = startup.import_seconds()
        assert gc.isenabled()
        assert startup.import_seconds() is None
    gc.unfreeze()
    assert 0.02 <= seconds < 5


def test_a_command_that_fails_turns_the_collector_on_again():
    with pytest.raises(KeyError), startup.fast_imports():
        raise KeyError
    assert gc.isenabled()
    assert startup.import_seconds() is None
