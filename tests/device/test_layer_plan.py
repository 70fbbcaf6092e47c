"""Whole layers: every step of every Whisper size against float64 on the emulated device, its limits and streams."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tilewhisper.kernels.base import LayerShape, UnsupportedShape
from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, bf16_values
from tilewhisper.kernels.xdna.designs import mlir
from tilewhisper.kernels.xdna.designs.plan_of_text import read_plan
from tilewhisper.kernels.xdna.designs.reader import DesignError, read
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.emulated.device import EmulatedDevice
from tilewhisper.kernels.xdna.emulated.program import program_of
from tilewhisper.kernels.xdna.instructions.comparison import check_stream
from tilewhisper.kernels.xdna.instructions.fields import StreamError
from tilewhisper.kernels.xdna.instructions.lowering import stream_of
from tilewhisper.kernels.xdna.instructions.words import encode as words_of
from tilewhisper.kernels.xdna.layer_plan import HEAD, ROWS, LayerPlan, Step, plan_layer
from tilewhisper.kernels.xdna.row_plan import plan_rows
from tilewhisper.kernels.xdna.sequence import Descriptor, Wait, encode, finish, runtime_sequence
from tilewhisper.kernels.xdna.tile_plan import View
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import SIZES

WIDTHS = sorted({size.d_model for size in SIZES.values()})
SUM = 2.0**-24
STEPS = ("add_norm", "qkv", "scores", "softmax", "attended", "out", "fc1", "fc2")
LARGE = 1500 * 2000  # elements of an operand


def layer(width: int, device: str) -> LayerPlan:
    return plan_layer(LayerShape(1500, width, width // HEAD, 4 * width), DEVICES[device])


def step_of(planned: LayerPlan, name: str) -> Step:
    return next(step for step in planned.steps if step.name == name)


every_layer = pytest.mark.parametrize("width", WIDTHS)
# XDNA2's designs differ from XDNA1's in the columns, and for tiny also in the core tile.
sizes = pytest.mark.parametrize(("width", "device"), [*((width, "xdna1") for width in WIDTHS), (384, "xdna2")])
every_device = pytest.mark.parametrize("device", DEVICES)


def random(shape: tuple[int, int], seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale)).astype(np.float32)


def bits(x: np.ndarray) -> np.ndarray:
    return bf16_bits(x.astype(np.float32), Rounding.NEAREST_EVEN)


def exact(stored: np.ndarray) -> np.ndarray:
    return bf16_values(stored).astype(np.float64)


def run(launch, *operands: np.ndarray) -> None:
    """On cores that run the micro-kernels where that takes less than a second or so, else on numpy's."""
    cores = "numpy" if max(launch.elements) > LARGE else None
    names = [operand.name for operand in launch.design.operands]
    stream = encode(runtime_sequence(launch), names).tobytes()
    EmulatedDevice(launch.device, cores=cores).execute(
        program_of(launch), stream, *(operand.reshape(-1).view(np.uint8) for operand in operands)
    )


def part(matrix: np.ndarray, view: View, rows: int, columns: int) -> np.ndarray:
    """The rows x columns of a matrix at a view's offset."""
    row, column = divmod(view.offset, view.pitch)
    return matrix[row : row + rows, column : column + columns]


def within(found: np.ndarray, expected: np.ndarray, error: np.ndarray | float) -> None:
    """A result rounded to bf16: off by `error` before the rounding, and by half a step of the result after it."""
    bound = error + 2.0**-8 * (abs(expected) + error) + 2.0**-133
    assert (abs(exact(found) - expected) <= bound).all(), np.max(abs(exact(found) - expected) / bound)


def bias_below(weight: np.ndarray, bias: np.ndarray, activation: float) -> np.ndarray:
    """B with a bias of three parts and the activation's name, written here anew."""
    below = np.zeros((64, weight.shape[1]), np.uint16)
    rest = bias.astype(np.float32)
    for row in range(3):
        below[row] = bits(rest)
        rest = rest - bf16_values(below[row])
    assert not rest.any()
    below[3] = bits(np.full(weight.shape[1], activation, np.float32))
    return np.concatenate((weight, below))


def gelu(x: np.ndarray) -> np.ndarray:
    return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()


@pytest.mark.slow
@sizes
@pytest.mark.parametrize("name", ["qkv", "out", "fc1", "fc2"])
def test_a_linear_step_equals_float64(name, width, device):
    (launch,) = step_of(layer(width, device), name).launches
    k, n = launch.launch.k, launch.launch.n
    a, b, bias = bits(random((ROWS, k), 1)), bits(random((k, n), 2, k**-0.5)), random((1, n), 3)[0]
    c = np.zeros((ROWS, n), np.uint16)
    run(launch, a, bias_below(b, bias, 1.0 if name == "fc1" else 0.0), c)
    sums = exact(a) @ exact(b) + bias
    error = (k + 4) * SUM * (abs(exact(a)) @ abs(exact(b)) + abs(bias))
    # GELU's slope is below 1.13, and torch's float32 GELU is off by a few units of 2^-24 of its input.
    within(c, *((gelu(sums), 1.13 * error + 4 * SUM * abs(sums)) if name == "fc1" else (sums, error)))


@pytest.mark.slow
@sizes
def test_the_scores_of_a_head_equal_float64_and_leave_the_others(width, device):
    step = step_of(layer(width, device), "scores")
    head = len(step.launches) - 1
    launch = step.launches[head]
    qkv = bits(random((ROWS, 3 * width), 1))
    scores = np.full(((head + 1) * ROWS, ROWS), 7, np.float32)
    run(launch, qkv, qkv, scores)
    q, k = (exact(part(qkv, view, ROWS, HEAD)) for view in (launch.views.a, launch.views.b))
    assert np.array_equal(q, exact(qkv[:, head * HEAD : (head + 1) * HEAD]))
    assert np.array_equal(k, exact(qkv[:, width + head * HEAD : width + (head + 1) * HEAD]))
    assert (abs(scores[head * ROWS :] - q @ k.T) <= (HEAD + 1) * SUM * (abs(q) @ abs(k.T))).all()
    assert (scores[: head * ROWS] == 7).all()


@pytest.mark.slow
@sizes
def test_the_attended_columns_of_a_head_equal_float64_and_leave_the_others(width, device):
    step = step_of(layer(width, device), "attended")
    head = len(step.launches) - 1
    qkv, weights = bits(random((ROWS, 3 * width), 1)), bits(abs(random(((head + 1) * ROWS, ROWS), 2)) / ROWS)
    attended = np.full((ROWS, width), 7, np.uint16)
    run(step.launches[head], weights, qkv, attended)
    p, v = exact(weights[head * ROWS :]), exact(qkv[:, 2 * width + head * HEAD : 2 * width + (head + 1) * HEAD])
    columns = slice(head * HEAD, (head + 1) * HEAD)
    within(attended[:, columns], p @ v, (ROWS + 1) * SUM * (p @ abs(v)))
    assert (attended[:, : head * HEAD] == 7).all()


@every_device
@every_layer
def test_add_norm_equals_float64(width, device):
    (launch,) = step_of(layer(width, device), "add_norm").launches
    x, y = random((ROWS, width), 1, 30.0), bits(random((ROWS, width), 2))
    x[:, 7] += 400  # Whisper's outliers
    total, normed = np.zeros_like(x), np.zeros((ROWS, width), np.uint16)
    run(launch, x, y, total, normed)
    value = x.astype(np.float64) + exact(y)
    assert (abs(total - value) <= SUM * abs(value)).all()
    centred = value - value.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    # The mean of `width` float32 numbers is off by `width` roundings of their magnitudes at most, the variance too.
    magnitude = abs(value).max(axis=1, keepdims=True)
    within(
        normed,
        centred / deviation,
        4 * width * SUM * magnitude / deviation + 2 * width * SUM * abs(centred / deviation),
    )


@every_device
def test_softmax_of_each_head_equals_float64_and_masks_keys(device):
    planned = layer(384, device)
    launch = replace(step_of(planned, "softmax").launches[0], rows=2 * ROWS)
    scores, bias = random((2 * ROWS, ROWS), 1, 5.0), np.zeros((1, ROWS), np.float32)
    bias[0, 3], bias[0, 1500:] = 2.0, -np.inf
    scores[5] += 1000
    weights = np.full((2 * ROWS, ROWS), 7, np.uint16)
    run(launch, scores, bias, weights)
    logits = scores.astype(np.float64) + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    # The logits are rounded, exp and the sum of 1,536 powers are in float32.
    off = SUM * (2 * abs(scores).max(axis=1, keepdims=True) + 2 + ROWS)
    within(weights, expected, 2 * off * expected)
    assert not weights[:, 1500:].any()
    assert not (weights == 7).all(axis=1).any()


@every_device
@every_layer
def test_a_layer_has_few_designs_and_every_buffer_is_written_before_it_is_read(width, device):
    planned = layer(width, device)
    assert len(planned.designs) <= DEVICES[device].max_contexts
    assert len(planned.designs) == (7 if (width, device) == (384, "xdna2") else 6)
    assert planned.calls == 7 + 2 * width // HEAD
    written = {"x", "y", "bias", "w_qkv", "w_out", "w_fc1", "w_fc2"}
    for step in planned.steps:
        for launch in step.launches:
            assert launch.design == step.design
            for operand, name, elements in zip(launch.design.operands, step.buffers, launch.elements, strict=True):
                matrix = planned.buffers[name]
                assert (matrix.rows * matrix.columns, matrix.dtype) == (elements, operand.dtype)
                assert operand.direction == "from array" or name in written
        written |= {n for o, n in zip(step.design.operands, step.buffers, strict=True) if o.direction == "from array"}
    assert {"next_x", "next_y"} <= written


def launches(width: int, device: str) -> Iterator:
    """Of each step the first launch and the last."""
    for step in layer(width, device).steps:
        yield from dict.fromkeys((step.launches[0], step.launches[-1]))


@every_device
@every_layer
def test_no_channel_has_more_than_four_transfers_in_its_queue(width, device):
    for step in layer(width, device).steps:
        for launch in step.launches:
            running: dict[int, list[Descriptor]] = {}
            for item in runtime_sequence(launch):
                active = running.setdefault(item.column, [])
                if isinstance(item, Wait):
                    assert finish(active, item)
                    continue
                active.append(item)
                assert sum(other.operand == item.operand for other in active) <= 4
                assert len({other.id for other in active}) == len(active) <= 16
            assert not any(item.direction == "from array" for active in running.values() for item in active)


@every_device
def test_the_stream_of_a_step_is_recognised_and_no_other(device):
    found = list(dict.fromkeys(launches(384, device)))
    streams = [words_of(stream_of(launch)).tobytes() for launch in found]
    for i, launch in enumerate(found):
        check_stream(streams[i], launch)
        for j, other in enumerate(streams):
            if j != i:
                with pytest.raises(StreamError):
                    check_stream(other, launch)


def test_a_changed_word_of_a_row_function_is_detected():
    (launch,) = step_of(layer(384, "xdna1"), "softmax").launches
    words = words_of(stream_of(launch))
    for place in range(4, len(words), 7):
        changed = words.copy()
        changed[place] ^= 1 << 3
        with pytest.raises(StreamError):
            check_stream(changed.tobytes(), launch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "device", "names"),
    [(1280, "xdna1", STEPS), (384, "xdna2", ("qkv", "attended", "softmax"))],
    ids=["largest, xdna1", "smallest, xdna2"],
)
def test_the_text_of_a_step_passes_and_is_read_back_as_its_plan(width, device, names):
    pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")
    for launch in (step_of(layer(width, device), name).launches[-1] for name in names):
        text = mlir.generate(launch)
        mlir.check(text)
        found = read_plan(read(text))
        assert (found.design, runtime_sequence(found)) == (launch.design, runtime_sequence(launch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("qkv", lambda t: t.replace("aie.buffer", "aie.lock", 1)),
        ("qkv", lambda t: t.replace("%sums_0_0, %B_column_0, %C_core_0_0", "%sums_0_1, %B_column_0, %C_core_0_0", 1)),
        ("scores", lambda t: t.replace("matmul_transposed", "matmul")),
        ("attended", lambda t: t.replace("static_strides = array<i64: 98304", "static_strides = array<i64: 98305", 1)),
        ("softmax", lambda t: t.replace("value = 96 : index", "value = 95 : index", 1)),
        ("softmax", lambda t: t.replace("metadata = @BIAS_shim_0", "metadata = @BIAS_shim_1", 1)),
        ("add_norm", lambda t: t.replace("memref<384xbf16>", "memref<368xbf16>", 1)),
    ],
)
def test_a_wrong_text_of_a_step_is_refused(name, change):
    pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")
    text = mlir.generate(step_of(layer(384, "xdna1"), name).launches[0])
    assert change(text) != text
    with pytest.raises(DesignError):
        mlir.check(change(text))


def test_sizes_that_no_design_takes_are_refused_with_the_limit():
    device = DEVICES["xdna1"]
    with pytest.raises(UnsupportedShape, match="at most 1536 positions on the device, got 1537"):
        plan_layer(LayerShape(1537, 384, 6, 1536), device)
    with pytest.raises(UnsupportedShape, match="heads of 64, got 384 / 8"):
        plan_layer(LayerShape(1500, 384, 8, 1536), device)
    with pytest.raises(UnsupportedShape, match="the rows must be a multiple of 8"):
        plan_rows("add_norm", device, 1500, 384)
    with pytest.raises(UnsupportedShape, match="bytes of L1"):
        plan_rows("softmax", device, ROWS, 4608, 96)
    qkv = step_of(layer(384, "xdna1"), "scores").launches[0]
    outside = replace(qkv.views, a=View(ROWS, 3 * 384, 3 * 384 - 32))
    with pytest.raises(UnsupportedShape, match="A, padded to 1536 x 64, reaches past its buffer"):
        plan(qkv.shape, qkv.geometry, device, outside)
