"""Large results of the native kernels: memory that one gives back is the next one's, and never another's meanwhile."""

import re
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tilewhisper.kernels.cpu import build, quantized

pytestmark = [
    pytest.mark.skipif(build.why_unavailable() is not None, reason="the native kernels cannot be compiled"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, where large results are mapped"),
]
MB = 1 << 20
COLUMNS = 1024


@pytest.fixture(scope="module")
def ones() -> quantized.PackedWeight:
    """A weight (1024, 16) of ones: 256 rows of results take 1 MB."""
    build.load()
    return quantized.pack(torch.ones(COLUMNS, 16), None, 8)


def result(weight: quantized.PackedWeight, megabytes: int, value: float = 1.0) -> torch.Tensor:
    return quantized.linear(torch.full((256 * megabytes, 16), value / 16), weight)


def resident() -> int:
    """Bytes of this process's memory that belong to no file."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def test_a_result_takes_the_memory_of_one_that_is_gone(ones):
    """Fresh memory may have the same address, but a page fault for each page of it: 768 for 3 MB."""
    first = result(ones, 3)
    place = first.data_ptr()
    del first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert result(ones, 3).data_ptr() == place
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 300


def test_results_of_another_size_replace_free_memory(ones):
    """Else the sizes of one window would stay beside those of the next, which is longer."""
    for _ in range(2):  # the first replaces whatever was free before
        result(ones, 7)
    before = resident()
    held = result(ones, 20)
    assert resident() - before < 17 * MB
    assert float(held.sum()) == pytest.approx(held.numel(), rel=1e-3)


def test_free_memory_has_a_limit(ones):
    before = resident()
    held = [result(ones, megabytes) for megabytes in range(4, 16)]  # 114 MB
    del held
    assert resident() - before < 16 * MB


def test_threads_get_memory_of_their_own(ones):
    def run(value: float) -> list[bool]:
        expected = torch.full((1,), value)
        return [torch.allclose(result(ones, 1 + number % 2, value), expected, rtol=1e-3) for number in range(30)]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(right) for right in threads.map(run, [1.0, 2.0, 3.0, 4.0]))
