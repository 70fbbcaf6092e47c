"""The tuner's choice obeys the bound and the time. The model is small and random, the clock is the backends' own."""

import itertools

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tilewhisper.engine.errors import PolicyError
from tilewhisper.engine.routing import policy
from tilewhisper.engine.routing.policy import Condition, Policy, Rule
from tilewhisper.engine.routing.policy_file import compact, to_toml
from tilewhisper.engine.routing.sites import sites_of
from tilewhisper.engine.tuning.autotune import tune
from tilewhisper.engine.tuning.evaluation import Trials
from tilewhisper.engine.tuning.fingerprint import fingerprint, other_machine
from tilewhisper.engine.tuning.synthetic_speech import synthetic_speech
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend

QKV = "layers.*.self_attn.{q_proj,k_proj,v_proj}"


class Workshop:
    """Backends by name, all on one clock that only their products move."""

    def __init__(self, **backends):
        self.now = 0.0
        self.last = None
        self.backends = {name: Made(self, name, **how) for name, how in backends.items()}

    def clock(self):
        return self.now

    def create(self, name):
        return self.backends[name]


class Made(TorchBackend):
    """float32 plus a part of the result turned round: wrong by `off`; a product takes `seconds`."""

    def __init__(self, workshop, name, seconds, off=0.0, takes=lambda shape: True, change=0.0):
        self.workshop, self.name, self.seconds, self.off, self.takes = workshop, name, seconds, off, takes
        self.change = change  # seconds more where another backend ran before

    def supports(self, shape):
        return None if self.takes(shape) else f"{shape} is too much for it"

    def _done(self, y):
        self.workshop.now += self.seconds + (self.change if self.workshop.last != self.name else 0.0)
        self.workshop.last = self.name
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
def tuned(model, monkeypatch):
    """`tune` with backends made to measure: its Tuning, and the Trials."""

    def run(bound, **backends):
        workshop = Workshop(**backends)
        monkeypatch.setattr("time.perf_counter", workshop.clock)
        mels = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(1))
        trials = Trials(model, list(mels), workshop.create)
        return tune(trials, list(backends), bound, rounds=3), trials

    return run


SLOW, MIDDLE, FAST = {"seconds": 4.0}, {"seconds": 2.0, "off": 1e-4}, {"seconds": 1.0, "off": 1e-2}


def feed_forward(shape):
    return 128 in (shape.k, shape.n)


@pytest.mark.parametrize(("bound", "name"), [(1.0, "fast"), (3e-4, "middle"), (1e-6, "torch")])
def test_the_fastest_within_the_bound_where_it_is_a_uniform_one(tuned, bound, name):
    tuning, _ = tuned(bound, torch=SLOW, middle=MIDDLE, fast=FAST)
    assert (tuning.chosen.policy.default, tuning.chosen.policy.rules) == (name, ())
    assert set(tuning.choice.values()) == {name}


def test_a_mixed_policy_beats_every_uniform_one_within_its_bound(tuned):
    tuning, trials = tuned(5e-3, torch=SLOW, middle=MIDDLE, fast=FAST)
    assert set(tuning.choice.values()) == {"middle", "fast"}
    assert tuning.chosen.error == trials.error(tuning.chosen.policy)
    assert 3e-4 < tuning.chosen.error <= 5e-3
    uniform = {whole.policy.name: whole for whole in tuning.wholes if whole is not tuning.chosen}
    assert set(uniform) == {"torch", "middle", "fast"}
    assert tuning.chosen.seconds < min(whole.seconds for whole in uniform.values() if whole.error <= 5e-3)
    assert uniform["fast"].error > 5e-3


def test_figures_are_of_each_backend_alone(tuned):
    tuning, _ = tuned(5e-3, torch=SLOW, fast=FAST)
    figures = {kind.name: of_kind for kind, of_kind in tuning.figures.items()}
    assert {"conv1", QKV, "layers.*.self_attn.{qk,av}", "layers.*.fc2"} <= set(figures)
    assert (figures[QKV]["torch"].seconds, figures[QKV]["fast"].seconds) == pytest.approx((2 * 4.0, 2 * 1.0))
    assert (figures["conv1"]["torch"].seconds, figures["conv1"]["torch"].error) == pytest.approx((4.0, 0.0))
    assert 0 < figures["layers.*.fc2"]["fast"].error < tuning.wholes[1].error


def test_single_layers_are_chosen_nearly_as_well_as_by_trying_all(tuned):
    """Two sites of two layers, one backend beside float32: sixteen policies, all of them measured."""
    backends = {"torch": SLOW, "fast": {**FAST, "takes": feed_forward}}
    _, trials = tuned(1.0, **backends)
    sites = [f"layers.{i}.fc{j}" for i in (0, 1) for j in (1, 2)]
    everything = {}
    for names in itertools.product(("torch", "fast"), repeat=4):
        rules = tuple(Rule(site, name) for site, name in zip(sites, names, strict=True))
        everything[names] = trials.error(Policy("one", "torch", rules))
    for bound in sorted(everything.values())[2::4]:
        tuning, _ = tuned(bound, **backends)
        chosen = {launch[0]: name for launch, name in tuning.choice.items()}
        names = tuple(chosen[site] for site in sites)
        assert everything[names] == tuning.chosen.error <= bound
        more = [(*names[:i], "fast", *names[i + 1 :]) for i in range(4) if names[i] != "fast"]
        assert all(everything[others] > bound for others in more)
        most = max(others.count("fast") for others, error in everything.items() if error <= bound)
        assert names.count("fast") >= max(1, most - 1)


def test_a_uniform_policy_that_turns_out_faster_than_the_mix_is_taken(tuned):
    """Going from one backend to another costs more here than the faster one saves."""
    backends = {"torch": {**SLOW, "change": 50.0}, "fast": {**FAST, "takes": feed_forward, "change": 50.0}}
    tuning, _ = tuned(1.0, **backends)
    assert [whole.policy.name for whole in tuning.wholes] == ["torch", "tuned"]
    assert tuning.chosen.policy.name == "torch"
    assert set(tuning.choice.values()) == {"torch"}


@pytest.mark.parametrize("off", [float("nan"), 0.9])
def test_a_broken_kernel_is_left_out_whatever_the_bound(tuned, off):
    tuning, _ = tuned(10.0, torch=SLOW, broken={"seconds": 0.1, "off": off})
    figure = next(of_kind["broken"] for kind, of_kind in tuning.figures.items() if kind.name == "layers.*.fc1")
    assert "wrong results" in figure.why_not
    assert figure.seconds == 0
    assert [whole.policy.name for whole in tuning.wholes if whole.policy.name == "broken"] == []


def test_what_a_backend_cannot_take_is_left_out_with_its_reason(tuned):
    tuning, _ = tuned(1.0, torch=SLOW, fast={**FAST, "takes": feed_forward})
    figures = {kind.name: of_kind["fast"] for kind, of_kind in tuning.figures.items()}
    assert "too much for it" in figures[QKV].why_not
    assert not figures["layers.*.fc1"].why_not
    assert {name for launch, name in tuning.choice.items() if "fc" in launch[0]} == {"fast"}


def test_the_model_is_left_as_it_was(tuned, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned(5e-3, torch=SLOW, fast=FAST)
    assert type(model.model.encoder.layers[0].fc1) is torch.nn.Linear
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- the policy as a file -----------------------------------------------------------------------------------------


def test_few_rules_send_every_site_where_the_table_says(model):
    sites = sites_of(model.config)
    for seed in range(20):
        picks = torch.randint(0, 3, (len(sites),), generator=torch.Generator().manual_seed(seed)).tolist()
        table = {site.name: ("torch", "int16", "int8")[pick] for site, pick in zip(sites, picks, strict=True)}
        found = policy.parse_policy(to_toml(compact("made", table)), "made")
        assert {route.site.name: route.backend for route in found.resolve(sites)} == table
    assert compact("one", dict.fromkeys(table, "int8")).rules == ()
    by_site = {site.name: "int16" if site.name.endswith("fc1") else "torch" for site in sites}
    assert [str(rule) for rule in compact("fc1", by_site).rules] == ["layers.*.fc1 = int16"]


def test_all_of_a_policy_can_be_written_and_read():
    rule = Rule("layers.*", "npu", "torch", Condition.parse("M*N > 100000"))
    made = Policy("p", "torch", (rule, Rule("conv1", "int8")), 'quoted "so" \\ and µ', "a machine\x7f, 2 CPUs")
    text = to_toml(made, ["two\nlines\r\x00", ""])
    read = policy.parse_policy(text, "p")
    assert [(r.sites, r.backend, r.fallback, r.when) for r in read.rules] == [
        (r.sites, r.backend, r.fallback, r.when) for r in made.rules
    ]
    assert (read.default, read.description, read.machine) == (made.default, made.description, made.machine)
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 2


def test_the_word_about_another_machine():
    here = Policy("mine.toml", "torch", machine=fingerprint())
    there = Policy("mine.toml", "torch", machine="AMD Am386, no FPU")
    assert other_machine(here) is None
    assert other_machine(policy.load_policy("cpu")) is None
    word = other_machine(there)
    assert "mine.toml was measured on another machine (AMD Am386, no FPU); run `tilewhisper tune` here" in word
    assert "\n" not in word


def test_the_machine_must_be_a_string():
    with pytest.raises(PolicyError, match="machine must be a string"):
        policy.parse_policy('default = "torch"\nmachine = 3', "test")


def test_the_synthetic_sound_is_the_same_every_time_and_within_full_scale():
    sound = synthetic_speech(2.0)
    assert (sound == synthetic_speech(2.0)).all()
    assert sound.shape == (32000,)
    assert 0.2 < abs(sound).max() <= 0.3
