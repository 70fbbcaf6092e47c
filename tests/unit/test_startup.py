"""The start's split, and that garbage is collected again whatever becomes of the command."""

import gc
import os
import subprocess
import sys
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


def test_who_compiles_after_all_finds_what_the_start_left_out():
    """In a process of its own, which has not imported torch."""
    script = """
import sys
from tilewhisper.engine import startup

with startup.no_compilers():
    from tilewhisper.engine.whisper_model import WhisperModel
assert "torch._meta_registrations" not in sys.modules, "it is imported elsewhere, so that leaving it out is no use"
import torch
import torch._meta_registrations
from torch._subclasses.fake_tensor import FakeTensorMode

with FakeTensorMode():
    pooled = torch.nn.functional.adaptive_max_pool2d(torch.ones(1, 1, 8, 8), 2)
assert pooled.shape == (1, 1, 2, 2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_out_of_a_torch_that_is_there():
    import torch

    with startup.no_compilers():
        assert torch._meta_registrations.__file__
    assert torch._meta_registrations.__file__
