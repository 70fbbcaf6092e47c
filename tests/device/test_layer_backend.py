"""Whole layers on the emulated device: the result, what moves between host and device, and failures."""

import gc

import numpy as np
import pytest
import torch

from tilewhisper.kernels import registry
from tilewhisper.kernels.base import EncoderLayer, LayerShape, Norm, ProductFailed, Settings
from tilewhisper.kernels.device_tensor import DeviceTensor, to_host
from tilewhisper.kernels.xdna import layer_backend, xrt
from tilewhisper.kernels.xdna.devices import XDNA1
from tilewhisper.kernels.xdna.emulated import pyxrt
from tilewhisper.kernels.xdna.emulated.core_functions import ROW_FUNCTIONS, softmax
from tilewhisper.kernels.xdna.emulated.on_demand import DesignsOnDemand
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.layer_backend import XdnaLayerBackend
from tilewhisper.kernels.xdna.layer_plan import plan_layer

WIDTH, HEADS = 128, 2
CALLS = plan_layer(LayerShape(1500, WIDTH, HEADS, 4 * WIDTH), XDNA1).calls


def signed(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def emulated(**faults):
    """numpy's cores, because these tests are about the host's side, and the micro-kernels take five times as long."""
    module = pyxrt.make(XDNA1, faults=pyxrt.Faults(**faults), cores="numpy")
    geometry = find_geometry("whole-array", XDNA1)
    return module, XdnaLayerBackend(xrt.open_device(module), XDNA1, geometry, DesignsOnDemand(), emulated=True)


def a_layer(of, seed=0):
    """A layer, prepared by a backend."""
    return of.prepare_layer(unprepared(of, seed))


def unprepared(of, seed=0, eps=1e-5):
    """A layer with biases and weights of a norm that matter."""

    def weights(n, k, number):
        return of.prepare(signed(n, k, seed=seed + number) / k**0.5, signed(n, seed=seed + number + 1))

    def norm(number):
        return of.prepare_norm(Norm(1 + 0.3 * signed(WIDTH, seed=number), 0.5 * signed(WIDTH, seed=number + 1), eps))

    products = (weights(3 * WIDTH, WIDTH, 1), weights(WIDTH, WIDTH, 3), weights(4 * WIDTH, WIDTH, 5))
    return EncoderLayer(
        norm(20), products[0], products[1], norm(22), products[2], weights(WIDTH, 4 * WIDTH, 7), HEADS, 0.125
    )


def close(found, expected, x):
    """Seven roundings to bf16 on a path through a layer, each off by 2^-9 of what it rounds, and six of weights."""
    return (found - expected).norm() <= 13 * 2.0**-9 * (expected - x).norm()


def test_layers_equal_float64_with_one_upload_and_one_read_back():
    module, npu = emulated()
    exact, x = registry.create("reference"), signed(2, 1500, WIDTH)
    first, second = a_layer(npu), a_layer(npu, seed=100)
    moved = {"XCL_BO_SYNC_BO_TO_DEVICE": 0, "XCL_BO_SYNC_BO_FROM_DEVICE": 0}
    sync = module.bo.sync

    def counted(self, direction, *extent):
        moved[direction.name] += 1
        return sync(self, direction, *extent)

    module.bo.sync = counted
    before = npu.usage
    y = npu.encoder_layer(npu.encoder_layer(x, first), second)
    assert isinstance(y, DeviceTensor)
    assert moved == {"XCL_BO_SYNC_BO_TO_DEVICE": 2 * 2 + 1, "XCL_BO_SYNC_BO_FROM_DEVICE": 0}  # x, y; the keys' mask
    found = to_host(y)
    assert moved["XCL_BO_SYNC_BO_FROM_DEVICE"] == 2 * 2
    used = npu.usage - before
    assert (used.calls, used.planned_calls, used.read_backs) == (2 * 2 * CALLS, 2 * 2 * CALLS, 1)
    expected = exact.encoder_layer(exact.encoder_layer(x, a_layer(exact)), a_layer(exact, seed=100))
    assert close(found, expected, x)


@pytest.mark.parametrize("positions", [1, 100, 1500])
def test_any_number_of_positions(positions):
    npu, exact, x = emulated()[1], registry.create("reference"), signed(1, positions, WIDTH)
    npu_layer = a_layer(npu)
    npu.encoder_layer(signed(1, 1500, WIDTH, seed=5) * 100, npu_layer)  # what it leaves behind must not matter
    assert close(to_host(npu.encoder_layer(x, npu_layer)), exact.encoder_layer(x, a_layer(exact)), x)


def test_a_bias_and_more_keys_and_values():
    npu, exact, x = emulated()[1], registry.create("reference"), signed(2, 300, WIDTH)
    more = (signed(2, HEADS, 90, 64, seed=1), signed(2, HEADS, 90, 64, seed=2))
    bias = signed(390, seed=3)
    bias[7], bias[350] = -torch.inf, 3.0
    expected = exact.encoder_layer(x, a_layer(exact), bias, more)
    plain = exact.encoder_layer(x, a_layer(exact))
    npu_layer = a_layer(npu)
    for _ in range(2):
        assert close(to_host(npu.encoder_layer(x, npu_layer, bias, more)), expected, x)
        assert close(to_host(npu.encoder_layer(x, npu_layer)), plain, x)
    assert not close(plain, expected, x)


def test_more_keys_than_the_designs_have_are_refused():
    npu = emulated()[1]
    more = (signed(1, HEADS, 100, 64), signed(1, HEADS, 100, 64))
    with pytest.raises(ProductFailed, match="attention over 1600 keys: the device's designs have 1536"):
        npu.encoder_layer(signed(1, 1500, WIDTH), a_layer(npu), None, more)


def test_an_activation_stays_as_it_is_and_its_memory_is_used_again():
    module, npu = emulated()
    npu_layer, x = a_layer(npu), signed(1, 1500, WIDTH)
    first = npu.encoder_layer(x, npu_layer)
    second = npu.encoder_layer(first, npu_layer)
    again = npu.encoder_layer(first, npu_layer)
    assert torch.equal(npu.to_host(second), npu.to_host(again))
    del first, second, again
    gc.collect()
    held = module.emulation.bytes_held
    for _ in range(3):
        npu.encoder_layer(npu.encoder_layer(x, npu_layer), npu_layer)
    assert module.emulation.bytes_held == held


def test_a_run_that_hangs_once_is_repeated():
    _, npu = emulated(hang_at=CALLS + 5)
    exact, x = registry.create("reference"), signed(1, 1500, WIDTH)
    npu_layer = a_layer(npu)
    before = npu.usage
    assert close(to_host(npu.encoder_layer(x, npu_layer)), exact.encoder_layer(x, a_layer(exact)), x)
    used = npu.usage - before
    assert used.planned_calls == CALLS < used.calls


def test_after_a_failed_layer_its_input_can_still_be_read():
    _, npu = emulated(hang_at=(2 * CALLS + 5, 2 * CALLS + 6, 2 * CALLS + 7))
    npu_layer, x = a_layer(npu), signed(1, 1500, WIDTH)
    y = npu.encoder_layer(x, npu_layer)
    with pytest.raises(ProductFailed, match="design disabled after a rebuild"):
        npu.encoder_layer(y, npu_layer)
    exact = registry.create("reference")
    assert close(npu.to_host(y), exact.encoder_layer(x, a_layer(exact)), x)


@pytest.mark.parametrize("wrong", [0.0, 0.5, float("nan")])
def test_a_device_that_computes_a_wrong_tile_is_refused_before_its_first_use(wrong, monkeypatch):
    def broken(scores, bias):
        (weights,) = softmax(scores, bias)
        weights[64:128] = np.array(np.float32(wrong)).view(np.uint32) >> 16
        return (weights,)

    monkeypatch.setitem(ROW_FUNCTIONS, "softmax", broken)
    npu = emulated()[1]
    for seed in (0, 100):  # the next layer must not be taken for checked
        with pytest.raises(ProductFailed, match=r"a layer of random numbers is wrong in \d+ tiles, the first at row"):
            a_layer(npu, seed)


def test_the_bound_of_the_check_is_far_above_bf16s_rounding(monkeypatch):
    monkeypatch.setattr(layer_backend, "CANARY_BOUND", 0.04)
    a_layer(emulated()[1])


def test_single_products_and_layers_of_another_size_run_as_products():
    npu, exact = emulated()[1], registry.create("reference")
    weight, bias, x = signed(96, 64), signed(96, seed=1), signed(2, 50, 64, seed=2)
    expected = exact.linear(x, exact.prepare(weight, bias))
    assert (npu.linear(x, npu.prepare(weight, bias)) - expected).norm() < 2.0**-8 * expected.norm()
    assert "heads of 64" in npu.supports_block("encoder_layer", LayerShape(1500, 64, 2, 256))
    assert npu.supports_block("encoder_layer", LayerShape(1500, 384, 6, 1536)) is None
    assert npu.supports_block("feed_forward", LayerShape(1500, 384, 6, 1536))


def test_a_layer_with_another_eps_runs_as_products():
    npu, exact, x = emulated()[1], registry.create("reference"), signed(1, 60, WIDTH)
    found = npu.encoder_layer(x, npu.prepare_layer(unprepared(npu, eps=0.5)))
    expected = exact.encoder_layer(x, exact.prepare_layer(unprepared(exact, eps=0.5)))
    assert close(to_host(found), expected, x)
    whole = emulated()[1]  # its six designs fit beside no others
    assert not close(to_host(whole.encoder_layer(x, a_layer(whole))), expected, x)


def test_its_name_says_that_it_is_emulated():
    assert registry.create("npu-layer", Settings(npu="emulated")).label == "npu-layer (emulated)"
