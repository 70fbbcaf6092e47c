"""The tuner chooses the fastest policy within the bound. The model is small and random; backends set the clock."""

import itertools

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tilewhisper.engine.errors import PolicyError
from tilewhisper.engine.routing import policy
from tilewhisper.engine.routing.policy import Condition, Policy, Rule
from tilewhisper.engine.routing.policy_file import compact, to_toml
from tilewhisper.engine.routing.sites import sites_of
from tilewhisper.engine.tuning import sensitivity, sensitivity_page
from tilewhisper.engine.tuning.autotune import tune
from tilewhisper.engine.tuning.evaluation import Trials
from tilewhisper.engine.tuning.fingerprint import fingerprint, machine_warning
from tilewhisper.engine.tuning.synthetic_speech import synthetic_speech
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

QKV = "layers.*.self_attn.{q_proj,k_proj,v_proj}"


class FakeBackends:
    """Backends by name that share a clock, which only their products move."""

    def __init__(self, **backends):
        self.now = 0.0
        self.last = None
        self.backends = {name: FakeBackend(self, name, **how) for name, how in backends.items()}

    def clock(self):
        return self.now

    def create(self, name):
        return self.backends[name]


class FakeBackend(TorchBackend):
    """float32 plus `off` times the reversed result; each product takes `seconds` on the shared clock."""

    def __init__(self, shared, name, seconds, off=0.0, takes=lambda shape: True, change=0.0):
        self.shared, self.name, self.seconds, self.off, self.takes = shared, name, seconds, off, takes
        self.change = change  # more seconds if another backend ran before

    def supports(self, shape):
        return None if self.takes(shape) else f"{shape} is not supported"

    def _done(self, y):
        self.shared.now += self.seconds + (self.change if self.shared.last != self.name else 0.0)
        self.shared.last = self.name
        return y + self.off * y.flip(-1)

    def linear(self, x, prepared):
        return self._done(super().linear(x, prepared))

    def conv_gelu(self, x, prepared, taps, stride):
        return self._done(super().conv_gelu(x, prepared, taps, stride))

    def attention(self, q, k, v, scale, bias=None):
        return self._done(super().attention(q, k, v, scale, bias))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=100, d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, max_source_positions=50,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    return model


@pytest.fixture
def mapped(model, monkeypatch):
    """Run `sensitivity.measure` on fake backends."""

    def run(*names, **backends):
        fakes = FakeBackends(torch={"seconds": 3.0}, **backends)
        monkeypatch.setattr("time.perf_counter", fakes.clock)
        mels = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(1))
        return sensitivity.measure(Trials(model, list(mels), fakes.create), None, names, rounds=1), fakes

    return run


@pytest.fixture
def tuned(model, monkeypatch):
    """Run `tune` on fake backends; returns its Tuning and the Trials."""

    def run(bound, **backends):
        fakes = FakeBackends(**backends)
        monkeypatch.setattr("time.perf_counter", fakes.clock)
        mels = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(1))
        trials = Trials(model, list(mels), fakes.create)
        return tune(trials, list(backends), bound, rounds=3), trials

    return run


SLOW, MIDDLE, FAST = {"seconds": 4.0}, {"seconds": 2.0, "off": 1e-4}, {"seconds": 1.0, "off": 1e-2}


def feed_forward(shape):
    return 128 in (shape.k, shape.n)


@pytest.mark.parametrize(("bound", "name"), [(1.0, "fast"), (3e-4, "middle"), (1e-6, "torch")])
def test_a_uniform_policy_is_chosen_if_it_is_the_fastest_within_the_bound(tuned, bound, name):
    tuning, _ = tuned(bound, torch=SLOW, middle=MIDDLE, fast=FAST)
    assert (tuning.chosen.policy.default, tuning.chosen.policy.rules) == (name, ())
    assert set(tuning.choice.values()) == {name}


def test_a_mixed_policy_beats_every_uniform_policy_within_the_bound(tuned):
    tuning, trials = tuned(5e-3, torch=SLOW, middle=MIDDLE, fast=FAST)
    assert set(tuning.choice.values()) == {"middle", "fast"}
    assert tuning.chosen.error == trials.error(tuning.chosen.policy)
    assert 3e-4 < tuning.chosen.error <= 5e-3
    uniform = {measured.policy.name: measured for measured in tuning.policies if measured is not tuning.chosen}
    assert set(uniform) == {"torch", "middle", "fast"}
    assert tuning.chosen.seconds < min(measured.seconds for measured in uniform.values() if measured.error <= 5e-3)
    assert uniform["fast"].error > 5e-3


def test_measurements_are_of_each_backend_alone(tuned):
    tuning, _ = tuned(5e-3, torch=SLOW, fast=FAST)
    measurements = {kind.name: of_kind for kind, of_kind in tuning.measurements.items()}
    assert {"conv1", QKV, "layers.*.self_attn.{qk,av}", "layers.*.fc2"} <= set(measurements)
    assert (measurements[QKV]["torch"].seconds, measurements[QKV]["fast"].seconds) == pytest.approx((2 * 4.0, 2 * 1.0))
    assert (measurements["conv1"]["torch"].seconds, measurements["conv1"]["torch"].error) == pytest.approx((4.0, 0.0))
    assert 0 < measurements["layers.*.fc2"]["fast"].error < tuning.policies[1].error


@pytest.mark.slow
def test_single_layers_are_chosen_nearly_as_well_as_by_exhaustive_search(tuned):
    """Two sites of two layers, one backend besides float32: sixteen policies, all measured."""
    backends = {"torch": SLOW, "fast": {**FAST, "takes": feed_forward}}
    _, trials = tuned(1.0, **backends)
    sites = [f"layers.{i}.fc{j}" for i in (0, 1) for j in (1, 2)]
    everything = {}
    for names in itertools.product(("torch", "fast"), repeat=4):
        rules = tuple(Rule(site, name) for site, name in zip(sites, names, strict=True))
        everything[names] = trials.error(Policy("mixed", "torch", rules))
    for bound in sorted(everything.values())[2::4]:
        tuning, _ = tuned(bound, **backends)
        chosen = {launch[0]: name for launch, name in tuning.choice.items()}
        names = tuple(chosen[site] for site in sites)
        assert everything[names] == tuning.chosen.error <= bound
        more = [(*names[:i], "fast", *names[i + 1 :]) for i in range(4) if names[i] != "fast"]
        assert all(everything[others] > bound for others in more)
        most = max(others.count("fast") for others, error in everything.items() if error <= bound)
        assert names.count("fast") >= max(1, most - 1)


def test_a_uniform_policy_that_proves_faster_than_the_mix_is_chosen(tuned):
    """Changing the backend costs more here than the faster backend saves."""
    backends = {"torch": {**SLOW, "change": 50.0}, "fast": {**FAST, "takes": feed_forward, "change": 50.0}}
    tuning, _ = tuned(1.0, **backends)
    assert [measured.policy.name for measured in tuning.policies] == ["torch", "tuned"]
    assert tuning.chosen.policy.name == "torch"
    assert set(tuning.choice.values()) == {"torch"}


@pytest.mark.parametrize("off", [float("nan"), 0.9])
def test_a_broken_kernel_is_excluded_whatever_the_bound(tuned, off):
    tuning, _ = tuned(10.0, torch=SLOW, broken={"seconds": 0.1, "off": off})
    measurement = next(
        of_kind["broken"] for kind, of_kind in tuning.measurements.items() if kind.name == "layers.*.fc1"
    )
    assert "wrong results" in measurement.exclusion
    assert measurement.seconds == 0
    assert [measured.policy.name for measured in tuning.policies if measured.policy.name == "broken"] == []


def test_an_unsupported_shape_is_excluded_with_its_reason(tuned):
    tuning, _ = tuned(1.0, torch=SLOW, fast={**FAST, "takes": feed_forward})
    measurements = {kind.name: of_kind["fast"] for kind, of_kind in tuning.measurements.items()}
    assert "is not supported" in measurements[QKV].exclusion
    assert not measurements["layers.*.fc1"].exclusion
    assert {name for launch, name in tuning.choice.items() if "fc" in launch[0]} == {"fast"}


def test_the_model_is_unchanged(tuned, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned(5e-3, torch=SLOW, fast=FAST)
    assert type(model.model.encoder.layers[0].fc1) is torch.nn.Linear
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- the policy as a file -----------------------------------------------------------------------------------------


def test_compact_rules_route_every_site_as_the_table_does(model):
    sites = sites_of(model.config)
    for seed in range(20):
        picks = torch.randint(0, 3, (len(sites),), generator=torch.Generator().manual_seed(seed)).tolist()
        table = {site.name: ("torch", "int16", "int8")[pick] for site, pick in zip(sites, picks, strict=True)}
        found = policy.parse_policy(to_toml(compact("made", table)), "made")
        assert {route.site.name: route.backend for route in found.resolve(sites)} == table
    assert compact("one", dict.fromkeys(table, "int8")).rules == ()
    by_site = {site.name: "int16" if site.name.endswith("fc1") else "torch" for site in sites}
    assert [str(rule) for rule in compact("fc1", by_site).rules] == ["layers.*.fc1 = int16"]


def test_every_part_of_a_policy_survives_writing_and_reading():
    rule = Rule("layers.*", "npu", "torch", Condition.parse("M*N > 100000"))
    made = Policy("p", "torch", (rule, Rule("conv1", "int8")), 'quoted "so" \\ and µ', "a machine\x7f, 2 CPUs")
    text = to_toml(made, ["two\nlines\r\x00", ""])
    read = policy.parse_policy(text, "p")
    assert [(r.sites, r.backend, r.fallback, r.when) for r in read.rules] == [
        (r.sites, r.backend, r.fallback, r.when) for r in made.rules
    ]
    assert (read.default, read.description, read.machine) == (made.default, made.description, made.machine)
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 2


def test_a_policy_of_another_machine_gives_a_warning():
    here = Policy("mine.toml", "torch", machine=fingerprint())
    there = Policy("mine.toml", "torch", machine="AMD Am386, no FPU")
    assert machine_warning(here) is None
    assert machine_warning(policy.load_policy("cpu")) is None
    warning = machine_warning(there)
    assert "mine.toml was measured on another machine (AMD Am386, no FPU); run `tilewhisper tune` here" in warning
    assert "\n" not in warning


def test_the_machine_must_be_a_string():
    with pytest.raises(PolicyError, match="machine must be a string"):
        policy.parse_policy('default = "torch"\nmachine = 3', "test")


def test_synthetic_speech_is_deterministic_and_within_full_scale():
    samples = synthetic_speech(2.0)
    assert (samples == synthetic_speech(2.0)).all()
    assert samples.shape == (32000,)
    assert 0.2 < abs(samples).max() <= 0.3


def test_a_map_has_the_error_and_the_time_of_each_product_alone(mapped, model):
    found, _ = mapped("fast", fast={"seconds": 1.0, "off": 0.01})
    effects = {effect.site: effect for effect in found.effects}
    assert list(effects) == [site.name for site in sites_of(model.config)]
    trials = Trials(model, list(torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(1))), FakeBackends(
        torch={"seconds": 0.0}, fast={"seconds": 0.0, "off": 0.01}
    ).create)  # fmt: skip
    for site in ("conv1", "layers.0.fc1", "layers.1.self_attn.k_proj"):
        alone = trials.error(Policy("alone", "torch", (Rule(site, "fast"),)))
        assert effects[site].error == pytest.approx(alone)
        assert alone > 0
    assert effects["layers.0.fc1"].seconds_saved == pytest.approx(2.0)
    assert {effect.text_error for effect in found.effects} == {None}


def test_a_map_says_why_a_product_has_no_figures(mapped):
    found, _ = mapped("small", small={"seconds": 1.0, "takes": lambda shape: shape.n != 128})
    excluded = {effect.site: effect.exclusion for effect in found.effects if effect.exclusion}
    assert set(excluded) == {"layers.0.fc1", "layers.1.fc1"}
    assert all("is not supported" in why for why in excluded.values())
    page = sensitivity_page.page("a <model>", found, "here")
    assert page.count("cannot run") == 2
    assert "a &lt;model&gt;" in page
    assert "http" not in page
