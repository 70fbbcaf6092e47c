"""One encoder layer on this machine's CPU: results are checked before they are timed, and no time is tested."""

from dataclasses import replace

import pytest
import torch

from tilewhisper.engine.tuning import cpu_layers
from tilewhisper.engine.tuning.cpu_layers import CPU_POLICIES, CpuLayer, measure
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import BackendUnavailable, LayerShape, ProductFailed
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

SMALL = LayerShape(positions=40, width=64, heads=2, hidden=128)


def only_torch(name, create=registry.create):
    if name == "torch":
        return create(name)
    raise BackendUnavailable(f"backend {name!r} cannot run here: no compiler")


def test_a_layer_is_timed_by_every_backend_of_the_cpus_policies():
    if reason := build.why_unavailable():
        pytest.skip(reason)
    layer = measure(SMALL)
    assert set(layer.backends) == {"torch", "int16", "w8a8"}
    assert all(seconds > 0 for seconds in (*layer.backends.values(), layer.without_projections, layer.without_products))
    assert layer.missing == ()


def test_torch_stands_in_for_missing_kernels_and_the_reason_is_kept(monkeypatch):
    monkeypatch.setattr(cpu_layers.registry, "create", only_torch)
    layer = measure(SMALL)
    assert {name: layer.policy(name, 3) for name in CPU_POLICIES} == dict.fromkeys(
        CPU_POLICIES, pytest.approx(3 * layer.backends["torch"])
    )
    assert layer.missing == tuple(f"backend {name!r} cannot run here: no compiler" for name in ("int16", "w8a8"))


def test_a_wrong_result_is_an_error_and_not_timed(monkeypatch):
    class Wrong(TorchBackend):
        def linear(self, x, prepared):
            return super().linear(x, prepared).flip(-1)

    monkeypatch.setattr(cpu_layers.registry, "create", lambda name: Wrong() if name == "int16" else TorchBackend())
    with pytest.raises(ProductFailed, match="a layer by backend int16 is wrong, relative error"):
        measure(SMALL)


def test_the_first_layer_of_policy_int8_has_16_bits():
    layer = CpuLayer(SMALL, {"torch": 5.0, "int16": 3.0, "w8a8": 2.0}, 1.0, 1.0)
    assert (layer.policy("cpu", 4), layer.policy("int8", 4)) == (4 * 3.0, 3.0 + 3 * 2.0)
    assert replace(layer, backends={"torch": 5.0}).policy("int8", 4) == 20.0


def test_products_without_time_have_the_right_sizes_and_no_arithmetic():
    nothing = cpu_layers._NoProducts()
    x = torch.ones(1, 40, 64)
    free = cpu_layers._layer(SMALL, cpu_layers._random_weights(SMALL), nothing)
    assert torch.equal(nothing.encoder_layer(x, free), x), "only the residuals are left"
    assert nothing.linear(x, nothing.prepare(torch.ones(7, 64), None)).shape == (1, 40, 7)
