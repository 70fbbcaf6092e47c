"""The router: launches, counts, threads, fallbacks and closing, on a small random model."""

import copy
import gc
import itertools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from troubled_backends import FeedForwardBackend, MeteredBackend, TroubledBackend, WholeLayerBackend

from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.errors import ModelClosed, PolicyError, RoutingError
from tilewhisper.engine.routing import operators, policy
from tilewhisper.engine.routing.modules import RoutedLinear, apply_policy
from tilewhisper.engine.routing.router import Counts
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import BackendUnavailable, UnknownBackend


@pytest.fixture
def model():
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # late: 3 s

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
    """The states, the counts by site, and the routed encoder."""
    routed = apply_policy(model, chosen, create)
    counts = Counts()
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
    counts = Counts()
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


def test_q_k_and_v_run_as_one_product_on_one_backend(model, mel):
    troubled = TroubledBackend()
    _, counts, routed = encode(model, mel, rules(default="troubled"), with_troubled(troubled))
    # Two convolutions. Per layer: q, k, v as one; qk; av; out; fc1; fc2.
    assert troubled.products == 2 + 2 * 6
    assert troubled.prepared == 2 + 2 * 4
    assert all(counts[name].calls == {"troubled": 1} for name in routed.router.plans)
    assert routed.router.plans["layers.0.self_attn.k_proj"].launch == "layers.0.self_attn.{q_proj,k_proj,v_proj}"


def test_q_k_and_v_run_separately_if_their_backends_differ(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = TroubledBackend()
    states, counts, _ = encode(
        model, mel, rules(("layers.0.self_attn.k_proj", "troubled", None)), with_troubled(troubled)
    )
    assert troubled.products == 1
    assert counts["layers.0.self_attn.k_proj"].calls == {"troubled": 1}
    assert counts["layers.0.self_attn.q_proj"].calls == {"torch": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_layer_runs_as_one_if_its_backend_can(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    whole = WholeLayerBackend()
    states, counts, routed = encode(model, mel, rules(("layers.*", "troubled", None)), with_troubled(whole))
    assert whole.products == 2
    assert {plan.launch for plan in routed.router.plans.values()} == {"conv1", "conv2", "layers.0.*", "layers.1.*"}
    assert all(count.calls.total() == 1 for count in counts.values()) and len(counts) == 2 + 2 * 8
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_failed_layer_runs_on_the_stated_fallback(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    whole = WholeLayerBackend(works=1)
    states, counts, _ = encode(model, mel, rules(("layers.*", "troubled", "torch")), with_troubled(whole))
    assert counts["layers.0.self_attn.qk"].calls == {"troubled": 1}
    assert counts["layers.1.self_attn.qk"].calls == {"torch": 1}
    assert counts["layers.1.fc2"].failures == {"the device was lost": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_fc1_and_fc2_run_as_one_if_their_backend_can(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = FeedForwardBackend()
    states, counts, routed = encode(model, mel, rules(("layers.*.fc?", "troubled", None)), with_troubled(troubled))
    assert troubled.products == 2
    assert {counts[f"layers.1.{leaf}"].calls["troubled"] for leaf in ("fc1", "fc2")} == {1}
    assert routed.router.plans["layers.1.fc2"].launch == "layers.1.{fc1,fc2}"
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_fc1_and_fc2_run_separately_if_their_backends_differ(model, mel):
    expected, _, _ = encode(copy.deepcopy(model), mel, rules())
    troubled = FeedForwardBackend()
    states, counts, _ = encode(model, mel, rules(("layers.*.fc1", "troubled", None)), with_troubled(troubled))
    assert counts["layers.0.fc1"].calls == {"troubled": 1} and counts["layers.0.fc2"].calls == {"torch": 1}
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


def test_a_failed_feed_forward_runs_on_the_stated_fallback_as_two_products(model, mel):
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


def test_a_model_can_be_routed_again(model, mel):
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


def test_an_unsupported_shape_goes_to_the_stated_fallback_with_the_reason(model, mel):
    troubled = TroubledBackend(refuses_k=128)
    _, counts, routed = encode(model, mel, rules(("*.fc?", "troubled", "torch")), with_troubled(troubled))
    plan = routed.router.plans["layers.0.fc2"]
    assert counts["layers.0.fc1"].calls == {"troubled": 1}
    assert counts["layers.0.fc2"].calls == {"torch": 1}
    assert "K = 128 is more than a tile holds" in plan.fallback_reason


def test_an_unsupported_shape_without_a_fallback_is_an_error(model):
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
    assert routed.router.plans["layers.0.fc1"].fallback_reason == "no room for the weights"


def test_a_backend_that_cannot_run_here_goes_to_the_stated_fallback(model, mel):
    def create(name):
        if name == "troubled":
            raise BackendUnavailable("backend 'troubled' cannot run here: no such device")
        return registry.create(name)

    _, counts, routed = encode(model, mel, rules(("*.fc1", "troubled", "torch")), create)
    assert counts["layers.0.fc1"].calls == {"torch": 1}
    assert "no such device" in routed.router.plans["layers.0.fc1"].fallback_reason
    with pytest.raises(PolicyError, match="no such device"):
        apply_policy(model, rules(("*.fc1", "troubled", None)), create)


def test_an_unknown_backend_is_an_error_before_anything_is_swapped(model):
    with pytest.raises(UnknownBackend):
        apply_policy(model, rules(("*.fc1", "bf17", None)))
    assert type(model.model.encoder.layers[0].fc1) is torch.nn.Linear


@pytest.mark.parametrize("name", ["torch", "int16"])
def test_threads_that_share_a_model_count_exactly_their_own_calls(model, mel, name):
    if reason := registry.backend_class(name).why_unavailable(registry.DEFAULTS):
        pytest.skip(reason)
    routed = apply_policy(model, rules(default=name))
    encoder = Encoder(model.model.encoder, routed)
    expected, ready = encoder(mel), threading.Barrier(4)

    def work(times):
        counts = Counts()
        ready.wait()
        for _ in range(times):
            with routed.router.counting(counts):
                states = encoder(mel)
            encoder(mel)  # not counted
            assert torch.equal(states, expected)
        return counts

    with ThreadPoolExecutor(4) as pool:
        for times, counts in zip((3, 5, 7, 9), pool.map(work, (3, 5, 7, 9)), strict=True):
            assert {site: count.calls for site, count in counts.items()} == {
                site: {name: times} for site in routed.router.plans
            }


def test_threads_that_share_a_device_count_exactly_its_work_for_them(model, mel):
    device, ready = MeteredBackend(), threading.Barrier(4)
    routed = apply_policy(
        model,
        rules(("layers.*.fc?", "device", None)),
        lambda name: device if name == "device" else registry.create(name),
    )
    encoder = Encoder(model.model.encoder, routed)

    def work(_):
        counts = Counts()
        ready.wait()
        with routed.router.counting(counts):
            encoder(mel)
        return counts

    with ThreadPoolExecutor(4) as pool:
        for counts in pool.map(work, range(4)):
            fcs = [counts[f"layers.{i}.fc{j}"] for i in range(2) for j in (1, 2)]
            assert [(count.device_calls, count.device_seconds) for count in fcs] == [(3, 1.0)] * 4
    assert device.usage.calls == 4 * 4 * 3


def test_counts_inside_counts_go_to_the_inner_ones_of_the_same_router(model, mel):
    other = apply_policy(copy.deepcopy(model), rules())
    routed = apply_policy(model, rules())
    outer, inner, others = (Counts() for _ in range(3))
    with routed.router.counting(outer):
        with routed.router.counting(inner), other.router.counting(others):
            Encoder(model.model.encoder, routed)(mel)
        assert not outer and not others
        Encoder(model.model.encoder, routed)(mel)
    assert outer["conv1"].calls == inner["conv1"].calls == {"torch": 1}


def test_a_closed_router_refuses_every_use(model, mel):
    _, _, routed = encode(model, mel, rules())
    routed.router.close()
    routed.router.close()
    for use in (
        lambda: Encoder(model.model.encoder, routed)(mel),
        lambda: routed.layers[0].run(torch.randn(1, 50, 64), None, None),
        lambda: model.model.encoder(mel),
        lambda: routed.router.uses_device(),
    ):
        with pytest.raises(ModelClosed, match="this model is closed; load it again"):
            use()
    assert routed.router.labels() == ("torch",)  # a report may be written after closing


def test_closing_releases_the_backends_and_their_weights(model, mel):
    troubled = TroubledBackend()
    _, _, routed = encode(model, mel, rules(default="troubled"), with_troubled(troubled))
    weights = [w for w in routed.router._prepared.values() if w is not None]
    prepared = [weakref.ref(w[1][0] if isinstance(w[1], tuple) else w[0]) for w in weights]
    del weights
    routed.router.close()
    gc.collect()
    assert troubled.closed
    assert prepared
    assert all(reference() is None for reference in prepared)


class Recorder(TorchDispatchMode):
    """Notes one call of each custom operator."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "tilewhisper":
            self.calls.setdefault(func, args)
        return func(*args, **(kwargs or {}))


@pytest.mark.slow  # opcheck imports torch's compiler: 4 s
def test_every_custom_operator_passes_opcheck(model, mel):
    """On arguments of real calls; their values do not matter, and opcheck takes no inference tensors."""
    whole, recorder = WholeLayerBackend(), Recorder()
    policies = [
        rules(),
        rules(default="bf16"),
        rules(("layers.0.*", "whole", None), ("layers.1.fc?", "feed_forward", None)),
    ]
    backends = {"whole": whole, "feed_forward": FeedForwardBackend()}
    with recorder:
        for chosen in policies:
            encode(model, mel, chosen, lambda name: backends.get(name) or registry.create(name))
        model.model.encoder(mel)
    defined = {value for value in vars(operators).values() if isinstance(value, torch._ops.OpOverload)}
    assert set(recorder.calls) == defined
    for operator, arguments in recorder.calls.items():
        inputs = [torch.rand(x.shape) if isinstance(x, torch.Tensor) else x for x in arguments]
        torch.library.opcheck(operator, tuple(inputs))


def test_a_router_lives_no_longer_than_its_model(model, mel):
    """No table of routers holds it, and no reference cycle."""
    _, _, routed = encode(model, mel, rules())
    router = weakref.ref(routed.router)
    gc.disable()
    try:
        apply_policy(model, rules())
        del routed
        assert router() is None
    finally:
        gc.enable()


def test_the_custom_op_equals_torch_bit_for_bit(model):
    fc1 = model.model.encoder.layers[0].fc1
    x = torch.randn(3, 64)
    expected = F.linear(x, fc1.weight, fc1.bias)
    routed = apply_policy(model, rules())
    assert torch.equal(model.model.encoder.layers[0].fc1(x), expected)
    assert routed.layers
