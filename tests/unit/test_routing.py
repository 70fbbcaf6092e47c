"""What the router runs, shares, counts, and does when a backend fails. The model is small and random."""

import copy
import gc
import itertools
import weakref
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.errors import PolicyError, RoutingError
from tilewhisper.engine.routing import policy
from tilewhisper.engine.routing.modules import RoutedLinear, apply_policy, routed_linear
from tilewhisper.engine.routing.router import SiteCount
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, BackendUnavailable, BlockBackend, ProductFailed, UnknownBackend


class TroubledBackend(Backend):
    """Stands for a device: it pads, takes only so many rows, and fails from its n-th product on."""

    name = "troubled"
    summary = "for tests"

    def __init__(self, works: int = 10**9, refuses_k: int | None = None, fails_to_prepare: bool = False) -> None:
        self.works, self.refuses_k, self.fails_to_prepare = works, refuses_k, fails_to_prepare
        self.prepared, self.products, self.closed = 0, 0, False

    def supports(self, shape):
        return f"K = {shape.k} is more than a tile holds" if shape.k == self.refuses_k else None

    def prepare(self, weight, bias):
        if self.fails_to_prepare:
            raise ProductFailed("no room for the weights")
        self.prepared += 1
        return F.pad(weight, (0, 0, 0, -len(weight) % 64)), len(weight), bias

    def linear(self, x, prepared):
        padded, n, bias = prepared
        self._run()
        y = (x @ padded.T)[..., :n]
        return y.contiguous() if bias is None else y + bias

    def matmul(self, a, b):
        self._run()
        return a @ b

    def close(self):
        self.closed = True

    def _run(self):
        self.products += 1
        if self.products > self.works:
            raise ProductFailed("the device was lost")


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=100, d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, max_source_positions=50,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config).eval().requires_grad_(False)


@pytest.fixture
def mel():
    return torch.randn(1, 80, 100, generator=torch.Generator().manual_seed(1))


def rules(*entries: tuple[str, str, str | None], default: str = "torch") -> policy.Policy:
    return policy.Policy("test", default, tuple(policy.Rule(*entry) for entry in entries))


def encode(model, mel, chosen, create=registry.create):
    """The states and what was counted, by site without `layers.`."""
    routed = apply_policy(model, chosen, create)
    counts = defaultdict(SiteCount)
    with routed.router.counting(counts):
        states = Encoder(model.model.encoder, routed)(mel)
    return states, counts, routed


def with_troubled(backend):
    return lambda name: backend if name == "troubled" else registry.create(name)


def test_the_routed_encoder_equals_transformers_own(model, mel):
    theirs = copy.deepcopy(model).model.encoder(mel).last_hidden_state
    ours, _, _ = encode(model, mel, rules())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_transformers_own_forward_runs_through_the_swapped_layers(model, mel):
    before = model.model.encoder(mel).last_hidden_state
    routed = apply_policy(model, rules(default="bf16"))
    counts = defaultdict(SiteCount)
    with routed.router.counting(counts):
        after = model.model.encoder(mel).last_hidden_state
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, before, rtol=0, atol=0.05)
    assert counts["layers.1.self_attn.k_proj"].calls == {"bf16": 1}


def test_the_state_dict_stays_as_it_was(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    routed = apply_policy(model, rules())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert isinstance(model.model.encoder.layers[0].fc1, RoutedLinear)
    assert routed.layers


def test_a_weight_is_shared_and_not_copied(model):
    fc1 = model.model.encoder.layers[0].fc1.weight
    routed = apply_policy(model, rules())
    assert model.model.encoder.layers[0].fc1.weight is fc1
    attention = model.model.encoder.layers[0].self_attn
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert routed.layers


def test_q_k_and_v_run_as_one_product_where_they_go_to_one_backend(model, mel):
    troubled = TroubledBackend()
    _, counts, routed = encode(model, mel, rules(default="troubled"), with_troubled(troubled))
    # Two convolutions. Per layer: q, k, v as one; qk; av; out; fc1; fc2.
    assert troubled.products == 2 + 2 * 6
    assert troubled.prepared == 2 + 2 * 4
    assert all(counts[name].calls == {"troubled": 1} for name in routed.router.plans)
    assert routed.router.plans["layers.0.self_attn.k_proj"].launch == "layers.0.self_attn.{q_proj,k_proj,v_proj}"


def test_q_k_and_v_run_apart_where_they_differ(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = TroubledBackend()
    states, counts, _ = encode(
        model, mel, rules(("layers.0.self_attn.k_proj", "troubled", None)), with_troubled(troubled)
    )
    assert troubled.products == 1
    assert counts["layers.0.self_attn.k_proj"].calls == {"troubled": 1}
    assert counts["layers.0.self_attn.q_proj"].calls == {"torch": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


class FeedForwardBackend(TroubledBackend, BlockBackend):
    """The same with the feed-forward half of a layer as one pass, which alone can fail."""

    def attention(self, q, k, v, scale, bias=None):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)

    def feed_forward(self, x, norm, fc1, fc2):
        self._run()
        return x + F.linear(F.gelu(F.linear(norm(x), fc1[0][: fc1[1]], fc1[2])), fc2[0][: fc2[1]], fc2[2])


def test_fc1_and_fc2_run_as_one_where_their_backend_can(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = FeedForwardBackend()
    states, counts, routed = encode(model, mel, rules(("layers.*.fc?", "troubled", None)), with_troubled(troubled))
    assert troubled.products == 2
    assert {counts[f"layers.1.{leaf}"].calls["troubled"] for leaf in ("fc1", "fc2")} == {1}
    assert routed.router.plans["layers.1.fc2"].launch == "layers.1.{fc1,fc2}"
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_fc1_and_fc2_run_apart_where_they_differ(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = FeedForwardBackend()
    states, counts, _ = encode(model, mel, rules(("layers.*.fc1", "troubled", None)), with_troubled(troubled))
    assert counts["layers.0.fc1"].calls == {"troubled": 1} and counts["layers.0.fc2"].calls == {"torch": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_feed_forward_that_fails_goes_to_the_stated_fallback_piece_by_piece(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = FeedForwardBackend(works=0)
    states, counts, _ = encode(model, mel, rules(("layers.*.fc?", "troubled", "torch")), with_troubled(troubled))
    assert counts["layers.0.fc2"].calls == {"torch": 1}
    assert counts["layers.0.fc2"].failures == {"the device was lost": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_the_attention_products_can_go_to_different_backends(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    states, counts, _ = encode(model, mel, rules(("layers.*.self_attn.qk", "reference", None)))
    assert counts["layers.1.self_attn.qk"].calls == {"reference": 1}
    assert counts["layers.1.self_attn.av"].calls == {"torch": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_model_can_be_routed_anew(model, mel):
    first, _, _ = encode(model, mel, rules())
    rounded, _, _ = encode(model, mel, rules(default="bf16"))
    again, _, _ = encode(model, mel, rules())
    assert not torch.equal(first, rounded)
    assert torch.equal(first, again)


def test_shared_time_is_split_by_work(model, mel, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("tilewhisper.engine.routing.router.time.perf_counter", lambda: float(next(ticks)))
    _, counts, _ = encode(model, mel, rules())
    q, k, v = (counts[f"layers.0.self_attn.{leaf}_proj"].seconds for leaf in "qkv")
    assert q == k == v
    assert q + k + v == pytest.approx(1.0)


def test_a_refused_shape_goes_to_the_stated_fallback_and_says_why(model, mel):
    troubled = TroubledBackend(refuses_k=128)
    _, counts, routed = encode(model, mel, rules(("*.fc?", "troubled", "torch")), with_troubled(troubled))
    plan = routed.router.plans["layers.0.fc2"]
    assert counts["layers.0.fc1"].calls == {"troubled": 1}
    assert counts["layers.0.fc2"].calls == {"torch": 1}
    assert "K = 128 is more than a tile holds" in plan.refusal


def test_a_refused_shape_without_a_fallback_is_an_error(model):
    with pytest.raises(PolicyError, match=r"layers\.0\.fc2.*K = 128 is more than a tile holds.*no fallback"):
        apply_policy(model, rules(("*.fc?", "troubled", None)), with_troubled(TroubledBackend(refuses_k=128)))


def test_a_failing_product_goes_to_the_stated_fallback_and_is_counted(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = TroubledBackend(works=3)
    states, counts, _ = encode(model, mel, rules(("*.fc?", "troubled", "torch")), with_troubled(troubled))
    assert counts["layers.1.fc1"].calls == {"troubled": 1}
    assert counts["layers.1.fc2"].calls == {"torch": 1}
    assert counts["layers.1.fc2"].failures == {"the device was lost": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_failing_product_without_a_fallback_is_an_error(model, mel):
    with pytest.raises(RoutingError, match=r"layers\.1\.fc2 failed on 'troubled': the device was lost.*no fallback"):
        encode(model, mel, rules(("*.fc?", "troubled", None)), with_troubled(TroubledBackend(works=3)))


def test_weights_that_cannot_be_prepared_go_to_the_stated_fallback(model, mel):
    troubled = TroubledBackend(fails_to_prepare=True)
    _, counts, routed = encode(model, mel, rules(("*.fc1", "troubled", "torch")), with_troubled(troubled))
    assert counts["layers.0.fc1"].calls == {"torch": 1}
    assert routed.router.plans["layers.0.fc1"].refusal == "no room for the weights"


def test_a_backend_that_cannot_run_here_goes_to_the_stated_fallback(model, mel):
    def create(name):
        if name == "troubled":
            raise BackendUnavailable("backend 'troubled' cannot run here: no such device")
        return registry.create(name)

    _, counts, routed = encode(model, mel, rules(("*.fc1", "troubled", "torch")), create)
    assert counts["layers.0.fc1"].calls == {"torch": 1}
    assert "no such device" in routed.router.plans["layers.0.fc1"].refusal
    with pytest.raises(PolicyError, match="no such device"):
        apply_policy(model, rules(("*.fc1", "troubled", None)), create)


def test_an_unknown_backend_is_refused_before_anything_is_swapped(model):
    with pytest.raises(UnknownBackend):
        apply_policy(model, rules(("*.fc1", "bf17", None)))
    assert type(model.model.encoder.layers[0].fc1) is torch.nn.Linear


def test_closing_releases_the_backends_and_their_weights(model, mel):
    troubled = TroubledBackend()
    _, _, routed = encode(model, mel, rules(default="troubled"), with_troubled(troubled))
    prepared = [weakref.ref(weights[0]) for weights in routed.router._prepared.values()]
    routed.router.close()
    gc.collect()
    assert troubled.closed
    assert prepared
    assert all(reference() is None for reference in prepared)


def test_the_custom_op_passes_opcheck(model):
    routed = apply_policy(model, rules())
    for linear in (model.model.encoder.layers[0].fc1, model.model.encoder.layers[0].self_attn.k_proj):
        x = torch.randn(2, 5, linear.weight.shape[1])
        torch.library.opcheck(routed_linear, (x, linear.weight, linear.bias, routed.router.key, linear.launch))


def test_the_custom_op_equals_torch_bit_for_bit(model):
    fc1 = model.model.encoder.layers[0].fc1
    x = torch.randn(3, 64)
    expected = F.linear(x, fc1.weight, fc1.bias)
    routed = apply_policy(model, rules())
    assert torch.equal(model.model.encoder.layers[0].fc1(x), expected)
    assert routed.layers
