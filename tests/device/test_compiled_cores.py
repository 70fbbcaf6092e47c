"""The emulated device with the compiled micro-kernels: every launch of an encoder layer, against numpy's cores."""

import numpy as np
import pytest

from tilewhisper.kernels.base import BackendUnavailable, LayerShape
from tilewhisper.kernels.cpu.compiler import find_compiler
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice
from tilewhisper.kernels.xdna.emulated.program import program_of
from tilewhisper.kernels.xdna.layer_plan import plan_layer
from tilewhisper.kernels.xdna.sequence import encode, runtime_sequence

LAYER = LayerShape(positions=1500, width=256, heads=4, hidden=512)
STEPS = ("add_norm", "qkv", "scores", "softmax", "attended", "out", "fc1", "fc2")


def filled(matrix, random):
    """The bytes of a matrix of random numbers."""
    x = random.standard_normal((matrix.rows, matrix.columns), dtype=np.float32)
    stored = bf16_bits(x, Rounding.NEAREST_EVEN) if matrix.dtype == "bf16" else x
    return stored.reshape(-1).view(np.uint8)


def with_header(weight, matrix, launch, gelu):
    """A product's B, whose last rows are a bias and the activation's name."""
    rows = weight.view(np.uint16).reshape(matrix.rows, matrix.columns)
    rows[launch.launch.k + 3 :] = 0
    rows[launch.launch.k + 3, :: launch.core.n] = 0x3F80 if gelu else 0
    return weight


@pytest.mark.parametrize("device", [XDNA1, XDNA2], ids=lambda d: d.name)
@pytest.mark.parametrize("name", STEPS)
def test_a_launch_of_a_layer_computes_the_same_as_numpy(name, device):
    try:
        find_compiler()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))
    layer = plan_layer(LAYER, device)
    step = next(step for step in layer.steps if step.name == name)
    launch, random = step.launches[-1], np.random.default_rng(0)
    matrices = [layer.buffers[buffer] for buffer in step.buffers]
    buffers = [filled(matrix, random) for matrix in matrices]
    if getattr(launch.design, "finish", "") == "bias":
        with_header(buffers[1], matrices[1], launch, name == "fc1")
    results = []
    for cores in ("compiled", "numpy"):
        mine = [buffer.copy() for buffer in buffers]
        stream = encode(runtime_sequence(launch), [operand.name for operand in launch.design.operands]).tobytes()
        EmulatedDevice(device, cores=cores).execute(program_of(launch), stream, *mine)
        results.append(mine)
    for matrix, start, compiled, numpys in zip(matrices, buffers, *results, strict=True):
        found, expected = (
            bf16_values(x.view(np.uint16)) if matrix.dtype == "bf16" else x.view(np.float32) for x in (compiled, numpys)
        )
        assert np.isfinite(found).all()
        # Each is rounded from nearly the same number, so they differ by one bf16 number at most.
        size = np.abs(expected)
        assert (np.abs(found - expected) <= size * 2.0**-7 + 2.0**-12 * size.max()).all()
    written = [(a != b).any() for a, b in zip(buffers, results[0], strict=True)]
    assert any(written)


def test_without_a_compiler_the_cores_use_numpy(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert EmulatedDevice(XDNA1).cores == "numpy"
    assert "no-such-compiler" in caplog.text
