"""The import time of a command, and the garbage collector, which must be on again however the command ends."""

import gc
import inspect
import sys
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


def test_modules_of_frames_are_found_by_name_until_the_imports_end():
    search = inspect.getmodule
    with startup.fast_imports():
        quick = inspect.getmodule
        assert quick(sys._getframe()) is sys.modules[__name__] is search(sys._getframe())
        assert quick(pytest.raises) is search(pytest.raises)
        startup.import_seconds()
        assert quick is not search and inspect.getmodule is search
    gc.unfreeze()
    with startup.fast_imports():
        pass
    assert inspect.getmodule is search
