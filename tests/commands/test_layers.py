"""`tilewhisper layers`: a row for every site with its size and its backend under the policy."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_weights

SITE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qk", "self_attn.av",
        "self_attn.out_proj", "fc1", "fc2")  # fmt: skip


def rows(finished) -> dict[str, list[str]]:
    """The cells of each site; the number of heads is missing if there is one product."""
    assert finished.status == 0, finished.err
    assert finished.err == ""
    heading, *lines = finished.out.splitlines()
    assert heading.split()[:5] == ["site", "heads", "M", "K", "N"]
    return {cells[0]: cells[1:] for cells in map(str.split, lines)}


def test_a_row_for_every_site_with_its_size(tilewhisper):
    table = rows(tilewhisper("layers", "--model", require_weights("tiny.en"), "--policy", "torch"))
    assert list(table) == ["conv1", "conv2"] + [f"layers.{i}.{leaf}" for i in range(4) for leaf in SITE]
    assert table["conv1"] == ["3000", "240", "384", "torch", "default"]
    assert table["conv2"] == ["1500", "1152", "384", "torch", "default"]
    for i in range(4):
        for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
            assert table[f"layers.{i}.self_attn.{leaf}"] == ["1500", "384", "384", "torch", "default"]
        assert table[f"layers.{i}.self_attn.qk"] == ["6", "1500", "64", "1500", "torch", "default"]
        assert table[f"layers.{i}.self_attn.av"] == ["6", "1500", "1500", "64", "torch", "default"]
        assert table[f"layers.{i}.fc1"] == ["1500", "384", "1536", "torch", "default"]
        assert table[f"layers.{i}.fc2"] == ["1500", "1536", "384", "torch", "default"]


def test_an_official_model_name_needs_no_weights(tilewhisper):
    table = rows(tilewhisper("layers", "--model", "large-v3"))
    assert len(table) == 2 + 32 * 8
    assert table["layers.31.self_attn.q_proj"][:3] == ["1500", "1280", "1280"]
    assert table["layers.31.self_attn.qk"][:4] == ["20", "1500", "64", "1500"]
    assert table["layers.31.fc1"][:3] == ["1500", "1280", "5120"]


def test_a_folder_gives_the_sizes_of_its_own_model(tilewhisper, tmp_path):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from tilewhisper.models.checkpoint.catalog import PACKAGES
    from tilewhisper.models.checkpoint.locate import installed

    require_weights("tiny.en")
    config = WhisperConfig(
        d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=51864, max_source_positions=1500,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer = installed(PACKAGES["tiny.en"]).folder / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    table = rows(tilewhisper("layers", "--model", tmp_path))
    assert len(table) == 2 + 2 * 8
    assert table["layers.1.fc2"][:3] == ["1500", "96", "64"]
    assert table["layers.1.self_attn.qk"][:4] == ["2", "1500", "32", "1500"]


def test_overrides_apply_on_top_of_a_policy_file(tilewhisper, tmp_path):
    policy = tmp_path / "mine.toml"
    policy.write_text(
        'default = "torch"\n[[rule]]\nsites = "*"\nwhen = "N > 1000"\nbackend = "bf16"\nfallback = "reference"\n'
    )
    arguments = ("--model", "tiny.en", "--policy", policy, "--backend", "layers.1.*=reference")
    table = rows(tilewhisper("layers", *arguments))
    assert table["layers.0.fc1"][3:] == ["bf16", "reference", *["*", "when", "N", ">", "1000", "=", "bf16"]]
    assert table["layers.0.self_attn.qk"][4:6] == ["bf16", "reference"]
    assert table["layers.0.fc2"][3:] == ["torch", "default"]
    assert {name for name, cells in table.items() if cells[-3:] == ["layers.1.*", "=", "reference"]} == {
        f"layers.1.{leaf}" for leaf in SITE
    }


def test_an_override_of_layer_1_does_not_match_layer_10(tilewhisper):
    table = rows(tilewhisper("layers", "--model", "large-v3", "--backend", "layers.1.*=bf16"))
    assert {name for name, cells in table.items() if "bf16" in cells} == {f"layers.1.{leaf}" for leaf in SITE}


@pytest.mark.parametrize("name", ["cpu", "int8", "torch", "bf16", "reference", "hybrid-bf16"])
def test_every_preset_can_be_shown(tilewhisper, name):
    assert len(rows(tilewhisper("layers", "--model", "base", "--policy", name))) == 2 + 6 * 8


def test_a_closed_pipe_is_no_error():
    """As in `tilewhisper layers | head -1`."""
    program = Path(sys.executable).with_name("tilewhisper")
    if not program.exists():
        pytest.skip("the command tilewhisper is not installed beside this Python")
    arguments = [str(program), "layers", "--model", "large-v3"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
