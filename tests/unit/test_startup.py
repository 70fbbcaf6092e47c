"""The start's split, and that garbage is collected again whatever becomes of the command."""

import gc
import os
import time

import pytest

from tilewhisper.engine import startup


def test_what_passes_before_the_model_is_told_once():
    with startup.swift():
        assert not gc.isenabled()
        time.sleep(0.02)
        age, imports = startup.imported()
        assert gc.isenabled()
        assert startup.imported() == (None, None)
    gc.unfreeze()
    assert 0.02 <= imports < 5
    if os.path.exists("/proc/self/stat"):  # noqa: PTH110 (one line)
        assert 0.05 < age < 24 * 3600  # of a process that has imported pytest


def test_a_command_that_fails_leaves_the_collector_on():
    with pytest.raises(KeyError), startup.swift():
        raise KeyError
    assert gc.isenabled()
    assert startup.imported() == (None, None)
