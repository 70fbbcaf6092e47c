"""The native library's measurement of the machine: plausible figures, and 0 for unknown kinds."""

import platform

import pytest
import torch

from tilewhisper.kernels.cpu import build

pytestmark = pytest.mark.skipif(build.why_unavailable() is not None, reason="the native kernels cannot be built here")


@pytest.fixture(scope="module")
def native():
    build.load()
    return torch.ops.tilewhisper_native


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 instructions are measured")
def test_the_peaks_are_plausible(native):
    """A shared machine's speed doubles from one moment to the next, and Zen 2 has one rate for all three kinds."""
    float32, int16, int8 = (native.peak(kind, "avx2") for kind in ("float32", "int16", "int8"))
    assert 1 < float32 < 1e6
    others = [int16, int8, native.peak("int16")]  # the last by the fastest set, which may be this one
    others += [native.peak("int8", name) for name in build.instruction_sets() if name in ("avx_vnni", "avx512")]
    assert all(float32 / 4 < peak < 1e6 for peak in others)


def test_unknown_kinds_are_zero(native):
    assert native.peak("int4") == 0
    assert native.peak("int16", "sve") == 0


def test_the_read_bandwidth_is_plausible(native):
    assert 0.1 < native.read_bandwidth() < 1e4


@pytest.mark.parametrize("words", [0, 1, 16, 33, 7 * 16, 161 * 16 + 5])
def test_every_word_of_a_memory_is_read(native, words):
    memory = torch.arange(words, dtype=torch.int32) % 97
    assert native.read(memory) == int(memory.sum())
