"""Activations that stay on a device: uploads, read-backs and results, with a backend that has memory of its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_routing import encode, mel, model, rules  # noqa: F401 (fixtures)

from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.routing.modules import apply_policy
from tilewhisper.engine.routing.router import Counts
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, ProductFailed, join_heads, split_heads
from tilewhisper.kernels.device_tensor import DeviceTensor, to_host

BLOCKS = ("attention", "feed_forward", "encoder_layer")


class LinearDevice(Backend):
    """The smallest backend with memory of its own, in float32: refuses host tensors and counts transfers."""

    name = "linear-device"
    summary = "for tests"
    on_device = True

    def __init__(self):
        self.uploads = self.read_backs = self.weights = 0

    def to_device(self, x):
        assert type(x) is torch.Tensor
        self.uploads += 1
        return self.put(x.float().clone())

    def to_host(self, x):
        self.read_backs += 1
        return self.get(x).clone()

    def prepare(self, weight, bias):
        self.weights += 1
        return weight.clone(), None if bias is None else bias.clone()

    def linear(self, x, prepared):
        return self.put(F.linear(self.get(x), *prepared))

    def matmul(self, a, b):
        return self.put(self.get(a) @ self.get(b))

    def put(self, x):
        return DeviceTensor(x.shape, self, x)

    def get(self, x):
        if not isinstance(x, DeviceTensor) or x.owner is not self:
            raise TypeError(f"expected an activation of this device, got {type(x).__name__}")
        return x.buffer


class Device(LinearDevice):
    """The same with every block; it runs as one call the blocks of several products named in `blocks`."""

    name = "device"

    def __init__(self, blocks=BLOCKS, fails_from=10**9):
        super().__init__()
        self.blocks, self.fails_from, self.layers = blocks, fails_from, 0

    def supports_block(self, block, shape):
        return None if block in self.blocks else f"no {block} here"

    def prepare_norm(self, norm):
        self.weights += 1
        return tuple(norm.weight.shape), norm.weight.clone(), norm.bias.clone(), norm.eps

    def linear_gelu(self, x, prepared):
        return self.put(F.gelu(F.linear(self.get(x), *prepared)))

    def linear_add(self, x, prepared, residual):
        return self.put(self.get(residual) + F.linear(self.get(x), *prepared))

    def norm_linear(self, x, norm, prepared):
        return self.put(F.linear(F.layer_norm(self.get(x), *norm), *prepared))

    def conv_gelu(self, x, prepared, taps, stride):
        weight, bias = prepared
        y = F.conv1d(self.get(x).mT, weight.unflatten(1, (taps, -1)).mT, bias, stride=stride, padding=taps // 2)
        return self.put(F.gelu(y).mT.contiguous())

    def qkv_attention(self, qkv, heads, scale, bias=None, more=None):
        q, k, v = split_heads(self.get(qkv), heads, more)
        logits = scale * q @ k.mT
        return self.put(join_heads((logits if bias is None else logits + bias).softmax(dim=-1) @ v))

    def feed_forward(self, x, norm, fc1, fc2):
        hidden = self.norm_linear(x, norm, fc1)
        return self.linear_add(self.put(F.gelu(self.get(hidden))), fc2, x)

    def encoder_layer(self, x, layer, bias=None, more=None):
        self.layers += 1
        if self.layers >= self.fails_from:
            raise ProductFailed("the device hangs")
        return super().encoder_layer(x, layer, bias, more)


def on(*backends):
    by_name = {backend.name: backend for backend in backends}
    return lambda name: by_name.get(name) or registry.create(name)


def tolerance(states):
    """Of float32 against float64: 14 products in a row (2 convolutions, 6 a layer), each off by up to K 2^-24 of its
    result's size; K is at most 240 here (3 * 80 mel channels)."""
    return 14 * 240 * 2.0**-24 * float(states.abs().max())


def assert_equals_float64(states, model, mel):  # noqa: F811
    exact, _, _ = encode(copy.deepcopy(model), mel, rules(default="reference"))
    assert (states - exact).abs().max() <= tolerance(exact)


def test_the_tolerance_is_tight_enough_to_notice_bf16(model, mel):  # noqa: F811
    exact, _, _ = encode(copy.deepcopy(model), mel, rules(default="reference"))
    rounded, _, _ = encode(model, mel, rules(default="bf16"))
    assert (rounded - exact).abs().max() > tolerance(exact)


LAYERS = ("layers.*", "device", None)
TRANSFERS = {
    "all layers": ([LAYERS], 1, 1),
    "the last layer": ([("layers.1.*", "device", None)], 1, 1),
    "all but the last feed-forward": ([("layers.1.fc?", "torch", None), LAYERS], 1, 1),
    # Of one layer: qkv is read back, attention's result is uploaded; the residual is there already.
    "all but the last attention": ([("layers.1.self_attn.?[kv]", "torch", None), LAYERS], 2, 2),
    "all but the first attention": ([("layers.0.self_attn.?[kv]", "torch", None), LAYERS], 2, 2),
    # Positions are added to the stem's result on the host.
    "convolutions too": ([("*", "device", None)], 2, 2),
    "fc1 only": ([("layers.*.fc1", "device", None)], 2, 2),
    "both attention products": ([("layers.*.self_attn.?[kv]", "device", None)], 2, 2),
}


@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:2]], ids=["whole layers", "blocks"])
@pytest.mark.parametrize("where", TRANSFERS)
def test_data_moves_only_where_the_backend_changes(model, mel, where, blocks):  # noqa: F811
    entries, uploads, read_backs = TRANSFERS[where]
    device = Device(blocks)
    states, counts, routed = encode(copy.deepcopy(model), mel, rules(*entries), on(device))
    assert (device.uploads, device.read_backs) == (uploads, read_backs)
    for site, plan in routed.router.plans.items():
        assert counts[site].calls == {plan.route.backend: 1}
    assert_equals_float64(states, model, mel)


def test_weights_are_uploaded_once(model, mel):  # noqa: F811
    device = Device()
    routed = apply_policy(model, rules(LAYERS), on(device))
    assert device.weights == 2 * (2 + 4)  # two norms; qkv, out, fc1, fc2
    encoder = Encoder(model.model.encoder, routed)
    assert torch.equal(encoder(mel), encoder(mel))
    assert device.weights == 2 * (2 + 4)


def test_a_backend_needs_only_linear_and_matmul(model, mel):  # noqa: F811
    device = LinearDevice()
    states, counts, _ = encode(copy.deepcopy(model), mel, rules(("*", "linear-device", None)), on(device))
    assert all(count.calls == {"linear-device": 1} for count in counts.values()) and len(counts) == 2 + 2 * 8
    assert_equals_float64(states, model, mel)


def test_blocks_without_an_override_are_composed_of_smaller_ones(model):  # noqa: F811
    """Called directly: the router never calls a block that the backend does not have."""
    device, exact = LinearDevice(), registry.create("reference")
    routed = apply_policy(model, rules(("layers.0.*", "device", None)), on(Device()))
    x, bias, more = torch.randn(1, 50, 64), torch.randn(53), (torch.randn(1, 2, 3, 32), torch.randn(1, 2, 3, 32))
    launch = next(cell.cell_contents for cell in routed.layers[0].run.__closure__)
    y = device.encoder_layer(device.to_device(x), launch.prepare(device), bias, more)
    expected = exact.encoder_layer(x, launch.prepare(exact), bias, more)
    assert (to_host(y) - expected).abs().max() <= tolerance(expected)


@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:2], ()], ids=["whole layers", "blocks", "products"])
@pytest.mark.parametrize("keys", [0, 7])
def test_a_bias_and_more_keys_reach_the_device(model, blocks, keys):  # noqa: F811
    x, bias = torch.randn(1, 50, 64), torch.randn(50 + keys)
    more = (torch.randn(1, 2, keys, 32), torch.randn(1, 2, keys, 32)) if keys else None
    exact = apply_policy(copy.deepcopy(model), rules(default="reference")).layers[0].run(x, bias, more)
    plain = apply_policy(copy.deepcopy(model), rules(default="reference")).layers[0].run(x, None, None)
    found = to_host(apply_policy(model, rules(LAYERS), on(Device(blocks))).layers[0].run(x, bias, more))
    assert (found - exact).abs().max() <= tolerance(exact) < (plain - exact).abs().max()


def test_activations_go_from_one_device_to_another_by_the_host(model, mel):  # noqa: F811
    first, second = Device(), Device()
    second.name = "second"
    chosen = rules(("layers.0.*", "device", None), ("layers.1.*", "second", None))
    states, _, _ = encode(copy.deepcopy(model), mel, chosen, on(first, second))
    assert [(d.uploads, d.read_backs) for d in (first, second)] == [(1, 1), (1, 1)]
    assert_equals_float64(states, model, mel)


def test_a_fallback_reads_back_what_the_failed_device_holds(model, mel):  # noqa: F811
    device = Device(fails_from=2)
    chosen = rules(("layers.*", "device", "torch"))
    states, counts, _ = encode(copy.deepcopy(model), mel, chosen, on(device))
    assert (device.uploads, device.read_backs) == (1, 1)
    assert counts["layers.0.fc1"].calls == {"device": 1}
    assert counts["layers.1.fc1"].calls == {"torch": 1}
    assert counts["layers.1.fc1"].failures == {"the device hangs": 1}
    assert_equals_float64(states, model, mel)


def test_keys_and_values_of_silence_can_be_read_from_a_device(model):  # noqa: F811
    x = torch.randn(1, 50, 64)
    for blocks in (BLOCKS, BLOCKS[:2]):
        device = Device(blocks)
        routed = apply_policy(copy.deepcopy(model), rules(LAYERS), on(device))
        layer, counts = routed.layers[0], Counts()
        with routed.router.counting(counts):
            qkv = layer.qkv(x)
            y = layer.rest(qkv, x, None, None)
        exact = apply_policy(copy.deepcopy(model), rules(default="reference")).layers[0]
        assert (to_host(qkv) - exact.qkv(x)).abs().max() <= tolerance(exact.qkv(x))
        assert (to_host(y) - exact.run(x, None, None)).abs().max() <= tolerance(exact.run(x, None, None))


def test_a_device_tensor_is_no_host_tensor():
    device = Device()
    x = device.to_device(torch.randn(3, 4))
    assert (x.shape, x.dtype, repr(x)) == ((3, 4), torch.float32, "DeviceTensor((3, 4), on 'device')")
    for use in (lambda: x + 1, lambda: x.mT, lambda: F.gelu(x), lambda: torch.cat([x, x]), lambda: x.clone()):
        with pytest.raises(RuntimeError, match="needs its data on the host, but got a DeviceTensor; call to_host"):
            use()
    with pytest.raises((RuntimeError, TypeError)):
        x.numpy()
    assert to_host(x) is to_host(x)  # read back once
    assert device.read_backs == 1


def test_the_device_of_these_tests_refuses_host_tensors_and_those_of_another():
    device, other = Device(), Device()
    prepared = device.prepare(torch.randn(4, 4), None)
    for x in (torch.randn(3, 4), other.to_device(torch.randn(3, 4))):
        with pytest.raises(TypeError, match="expected an activation of this device"):
            device.linear(x, prepared)
