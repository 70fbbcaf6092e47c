"""The native library's measurement of the machine: figures that can be, and 0 for what it does not know."""

import platform

import pytest
import torch

from tilewhisper.kernels.cpu import build

pytestmark = pytest.mark.skipif(build.why_unavailable() is not None, reason="the native kernels cannot be built here")


@pytest.fixture(scope="module")
def native():
    build.load()
    return torch.ops.tilewhisper_native


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86's instructions are known")
def test_narrower_numbers_have_higher_peaks(native):
    float32, int16, int8 = (native.peak(kind, "avx2") for kind in ("float32", "int16", "int8"))
    assert 1 < float32 < int16 < int8 < 1e6
    assert native.peak("int16") > 0.8 * int16  # the fastest of all sets, this one among them


def test_what_is_not_known_is_zero(native):
    assert native.peak("int4") == 0
    assert native.peak("int16", "sve") == 0


def test_memory_is_read_at_a_speed_memory_has(native):
    assert 0.1 < native.read_bandwidth() < 1e4


@pytest.mark.parametrize("lines", [1, 2, 7, 161])
def test_every_line_of_a_memory_is_read(native, lines):
    memory = torch.arange(16 * lines, dtype=torch.int32) % 97
    assert native.read(memory) == int(memory.sum())
