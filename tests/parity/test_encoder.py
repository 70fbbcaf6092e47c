"""The routed encoder against transformers' own forward, real weights, real speech."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine.routing.router import Counts
from tilewhisper.kernels.cpu.build import why_unavailable
from tilewhisper.models.audio import reader


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(params=["tiny.en", "base"])
def case(request, oracle, shared):
    """A model's name, a window of speech, and transformers' states of it."""
    theirs = oracle(request.param)
    mel = theirs.log_mel(reader.decode_audio(shared / "jfk.flac"))
    return request.param, mel, theirs.states(mel)


def test_torch_equals_transformers(case, engine):
    name, mel, states = case
    assert relative_error(engine(name).encode(mel), states) <= 1e-5


@pytest.mark.parametrize("policy", ["bf16", "hybrid-bf16"])
def test_bf16_is_near_but_not_equal(case, policy):
    name, mel, states = case
    with WhisperModel(name, policy=policy) as model:
        error = relative_error(model.encode(mel), states)
    assert 1e-5 < error <= 2e-2


@pytest.mark.skipif(why_unavailable() is not None, reason="no native kernels")
def test_int8_is_within_a_few_hundredths(case):
    name, mel, states = case
    with WhisperModel(name, policy="int8") as model:
        error = relative_error(model.encode(mel), states)
        first = [plan.route.site.name.startswith("layers.0.self_attn.") for plan in model.site_plans]
        assert [plan.backend for plan in model.site_plans] == ["int16" if is_first else "w8a8" for is_first in first]
    assert 5e-3 < error <= 4e-2  # about 2 %; with the first layer's attention in 8 bits, too, 4 to 6 % for base


def test_float64_differs_from_float32_by_its_rounding_only(case):
    name, mel, states = case
    with WhisperModel(name, policy="reference") as model:
        error = relative_error(model.encode(mel), states)
    assert 0 < error <= 1e-5


def test_windows_in_a_batch_are_encoded_as_if_alone(engine, oracle, shared):
    mels = [
        oracle("tiny.en").log_mel(reader.decode_audio(shared / "librispeech" / f"1688-142285-000{i}.flac"))
        for i in range(2)
    ]
    together = engine("tiny.en").encode(torch.cat(mels))
    for states, mel in zip(together, mels, strict=True):
        assert relative_error(states[None], engine("tiny.en").encode(mel)) <= 1e-6


@pytest.mark.parametrize("policy", ["torch", "cpu"])
def test_threads_that_encode_on_one_model_count_exactly_their_own_calls(oracle, shared, policy):
    mel = oracle("tiny.en").log_mel(reader.decode_audio(shared / "jfk.flac"))
    with WhisperModel("tiny.en", policy=policy) as model, ThreadPoolExecutor(4) as pool:
        expected, sites = model.encode(mel), {plan.route.site.name for plan in model.site_plans}
        assert len(sites) == 2 + 4 * 8

        def work(_):
            counts = Counts()
            assert torch.equal(model.encode(mel, counts), expected)
            return counts

        for counts in pool.map(work, range(4)):
            assert {site: count.calls.total() for site, count in counts.items()} == dict.fromkeys(sites, 1)


def test_the_same_thread_count_gives_the_same_bits(case, engine):
    name, mel, _ = case
    assert torch.equal(engine(name).encode(mel), engine(name).encode(mel))


@pytest.mark.parametrize("policy", ["cpu", "int8", "torch"])
def test_an_empty_batch_gives_no_states(policy):
    if policy != "torch" and why_unavailable():
        pytest.skip("no native kernels")
    with WhisperModel(require_weights("tiny.en"), policy=policy) as model:
        assert model.encode(torch.empty(0, 80, 3000)).shape == (0, 1500, 384)
