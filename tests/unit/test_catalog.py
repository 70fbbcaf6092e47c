"""Official models and the encoder's sites: names, order and sizes of the sites are checked against a forward pass."""

import pytest
import torch

import tilewhisper
from tilewhisper.engine.routing import sites
from tilewhisper.models.checkpoint import catalog


@pytest.mark.slow
def test_linear_sites_are_the_products_of_a_forward_pass_in_order() -> None:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=60, max_source_positions=10, pad_token_id=1,
        bos_token_id=1, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    encoder = WhisperModel(config).encoder
    called: list[tuple[str, int, int, int]] = []
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda m, inputs, output, name=name: called.append((name, inputs[0].shape[-2], *m.weight.T.shape))
            )
    encoder(torch.zeros(1, 80, 20))
    found = sites.sites_of(config)
    assert [(s.name, s.m, s.k, s.n) for s in found if s.kind == "linear"] == called


def test_attention_products_come_between_v_and_out() -> None:
    found = sites.encoder_sites(layers=4, d_model=384, heads=6, ffn=1536)
    assert len(found) == 32
    third = [site for site in found if site.name.startswith("layers.3.")]
    assert [site.name.rpartition(".")[2] for site in third] == [
        "q_proj", "k_proj", "v_proj", "qk", "av", "out_proj", "fc1", "fc2",
    ]  # fmt: skip
    assert third[3] == sites.Site("layers.3.self_attn.qk", 6, 1500, 64, 1500, "matmul")
    assert third[4] == sites.Site("layers.3.self_attn.av", 6, 1500, 1500, 64, "matmul")


def test_available_models_are_those_of_faster_whisper() -> None:
    names = catalog.available_models()
    assert isinstance(names, list)
    assert names[0] == "tiny.en" and {"base", "large-v3", "large", "turbo"} <= set(names)
    assert all(catalog.repository(name) for name in names)
    assert catalog.repository("distil-large-v3.5") == "distil-whisper/distil-large-v3.5"
    utils = pytest.importorskip("faster_whisper.utils", reason="faster-whisper is not installed")
    assert set(names) == set(utils.available_models())
    assert tilewhisper.available_models() == names


def test_every_official_size_is_consistent() -> None:
    for size in catalog.SIZES.values():
        assert size.d_model == 64 * size.heads
        assert len(size.sha256) == 64
        assert all(layer < size.decoder_layers and head < size.heads for layer, head in size.alignment_heads)
    assert catalog.official("turbo") is catalog.SIZES["large-v3-turbo"]
    assert catalog.SIZES["large-v1"].hub_id == "openai/whisper-large"
    assert catalog.official("nope") is None


def test_a_d_model_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        sites.encoder_sites(layers=1, d_model=100, heads=6, ffn=400)
