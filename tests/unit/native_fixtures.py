"""Fixtures of the native kernels' tests; a test module names this one in `pytest_plugins`."""

import pytest
import torch

from tilewhisper.kernels import registry
from tilewhisper.kernels.cpu import build

build.load()
native = torch.ops.tilewhisper_native


@pytest.fixture(params=build.instruction_sets())
def instruction_set(request):
    """Each instruction set that this processor has, in use during the test."""
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


@pytest.fixture(params=["int16", "int8", "int4"])
def backend(request):
    """Each native backend that can run a decoder."""
    return registry.create(request.param)


@pytest.fixture(params=["int16", "int8", "int4", "w8a8"])
def any_backend(request):
    """Each native backend."""
    return registry.create(request.param)


@pytest.fixture
def set_threads():
    """`torch.set_num_threads`, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
